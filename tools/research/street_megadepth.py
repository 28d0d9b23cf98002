"""`research street-megadepth`: the generated street in MegaDepth's layout, with exact depth."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from pixloc_ros.cli.progress import track
from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.render import render
from pixloc_ros.demo.street.sessions import SESSIONS
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.hloc import import_h5py
from pixloc_ros.training.depth_maps import DATASET, DepthMap, common_points

SCENE = "0000"
SAMPLES = 2000  # pixels per image for counting overlaps


def street_megadepth(
    output: Annotated[Path, typer.Option(help="root folder to write")],
    length: Annotated[float, typer.Option(min=5, help="length of the drive, in metres")] = 30.0,
    width: Annotated[int, typer.Option(min=64, help="of the images")] = 320,
    height: Annotated[int, typer.Option(min=64, help="of the images")] = 192,
    seed: Annotated[int, typer.Option(help="seed of the street")] = 0,
) -> None:
    """Write the mapping drive of a generated street in MegaDepth's layout.

    Undistorted_SfM with images and model, MegaDepth_v1 with depth maps, scene_info with the overlap
    of all pairs as in D2-Net: the share of a depth map that another image shows.

    Example: python -m research street-megadepth --output megadepth
    """
    if output.exists():
        raise DataError(f"{output} exists already: remove it or choose another folder")
    options = DatasetOptions(seed=seed, length_m=length, width=width, height=height)
    write_dataset(output / "street", options)
    mapping, scene = output / "street" / "mapping", output / "Undistorted_SfM" / SCENE
    scene.mkdir(parents=True)
    shutil.move(mapping / "images", scene / "images")
    shutil.move(mapping / "colmap", scene / "sparse")
    model = read_model(scene / "sparse")
    depths = _write_depth_maps(
        output / "MegaDepth_v1" / SCENE / "dense0" / "depths", model, options
    )
    _write_scene_info(output / "scene_info", model, depths)


def _write_depth_maps(
    folder: Path, model: ColmapModel, options: DatasetOptions
) -> list[NDArray[np.float32]]:
    h5py = import_h5py()
    folder.mkdir(parents=True)
    street, depths = options.generate(SESSIONS["mapping"]), []
    for image in track(model.images, "depth maps", len(model.images)):
        T_map_cam = se3.inverse(image.T_cam_world)
        view = render(street, T_map_cam, options.K, options.width, options.height)
        depth_m = np.where(np.isfinite(view.depth_m), view.depth_m, 0).astype(np.float32)
        with h5py.File(folder / f"{Path(image.name).stem}.h5", "w") as file:
            file[DATASET] = depth_m
        depths.append(depth_m)
    return depths


def _write_scene_info(
    folder: Path, model: ColmapModel, depths: Sequence[NDArray[np.float32]]
) -> None:
    rng = np.random.default_rng(0)
    maps = [
        DepthMap(depth, model.cameras[image.camera_id])
        for image, depth in zip(model.images, depths, strict=True)
    ]
    overlap = np.full((len(maps), len(maps)), -1.0)
    for i, reference in enumerate(track(maps, "overlaps", len(maps))):
        for j, query in enumerate(maps):
            T = model.images[j].T_cam_world @ se3.inverse(model.images[i].T_cam_world)
            if i != j:
                shared, _ = common_points(reference, query, T, SAMPLES, rng)
                overlap[i, j] = len(shared) / SAMPLES
    folder.mkdir(parents=True)
    paths = [f"Undistorted_SfM/{SCENE}/images/{image.name}" for image in model.images]
    objects = np.array([*paths, None], object)[:-1]  # like D2-Net's, which has gaps
    np.savez(folder / f"{SCENE}.npz", image_paths=objects, overlap_matrix=overlap)
