"""`research verification-places`: the maps and streets that `research verification-shots` needs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pixloc_ros.cli.progress import track
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset, write_drive
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build.builder import BuildOptions, MapSource, build_map
from pixloc_ros.maps.build.sources import ColmapSource, PosedImagesSource
from pixloc_ros.maps.files.posed_images import read_posed_images
from research.repeating_street import RepeatingStreet
from research.verification_shots import FOLDERS, SPLITS, map_folder, street_drive

LENGTH_M, RATE_HZ = 24.0, 4.0  # 12 frames


def verification_places(
    split: Annotated[str, typer.Argument(help="fit, choose or judge")],
    data: Annotated[Path, typer.Option(help="folder of the real data")],
    work: Annotated[Path, typer.Option(help="folder to write; what exists is kept")],
    weights: Annotated[str, typer.Option(help="weights of the maps")] = "compact_seed",
) -> None:
    """Generate the streets and build the maps for the shots of one split.

    Example: research verification-places judge --data ../shared/data --work verification
    """
    extractor = FeatureExtractor(weights)
    write_without_poses(data / FOLDERS["raw"] / "meta.json", work / "raw_meta.json")
    drives = sorted({shots.drive for shots in SPLITS[split] if shots.drive.startswith("street")})
    for name in track(drives, "streets", len(drives)):
        write_street(work, name)
    maps = sorted({shots.map for shots in SPLITS[split]})
    for name in track(maps, "maps", len(maps)):
        if not (folder := map_folder(work, name)).exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            source, options = source_of(name, data, work)
            build_map(source, folder, options, extractor)


def write_without_poses(meta: Path, output: Path) -> None:
    """Put all images of a drive whose poses are unknown at the origin."""
    content = json.loads(meta.read_text())
    for index, image in enumerate(content["images"]):
        image |= {"T_world_cam": np.eye(4)[:3].ravel().tolist(), "t": float(index)}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(content))


def write_street(work: Path, name: str) -> None:
    """Write one session of a street; with the first one, its mapping drive and `later`."""
    street, session = name.removeprefix("street").split("/")
    if not (dataset := work / "streets" / street / "street").exists():
        dataset.parent.mkdir(parents=True, exist_ok=True)
        write_dataset(dataset, options_of(street, "later"))
    if not (drive := street_drive(work, name)).exists():
        write_drive(drive, options_of(street, session))


def options_of(street: str, session: str) -> DatasetOptions:
    """Return what to generate: a number is a seed, `repeating...` a street of equal places."""
    options = DatasetOptions(length_m=LENGTH_M, rate_hz=RATE_HZ, session=session, workers=1)
    if street.startswith("repeating"):
        return RepeatingStreet(**asdict(options), same_ground=street == "repeating")
    return replace(options, seed=int(street))


def source_of(name: str, data: Path, work: Path) -> tuple[MapSource, BuildOptions]:
    """Return what a map is built from, and how."""
    if name.startswith("street"):
        street = work / "streets" / name.removeprefix("street") / "street"
        drive = read_posed_images(street / "drive/meta.json", street / "drive/images")
        options = BuildOptions(T_base_cam=drive.T_base_cam)
        return colmap(street / "mapping"), options
    folder = data / FOLDERS[name]
    if name == "kitti":
        options = BuildOptions(axes="optical_to_ros", T_base_cam=se3.base_from_optical())
        return colmap(folder), options
    source = PosedImagesSource(poses=folder / "meta_map.json", images=folder / "images")
    return source, BuildOptions(axes="optical_to_ros")


def colmap(folder: Path) -> ColmapSource:
    """Return the model and images of a folder."""
    return ColmapSource(model_dir=folder / "colmap", images=folder / "images")
