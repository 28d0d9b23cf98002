"""`pixloc localize-published`: run PixLoc as published, on a COLMAP model, for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.progress import track
from pixloc_ros.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pixloc_ros.alignment.published import Image, PublishedLocalizer, PublishedResult
    from pixloc_ros.geometry.camera import Camera

Localize = Callable[[str, "Image", "Camera"], "PublishedResult | None"]


def localize_published(
    colmap: Annotated[Path, typer.Option(help="COLMAP model of the references")],
    references: Annotated[
        Path, typer.Option(help="folder that the model's image names are relative to")
    ],
    images: Annotated[Path, typer.Option(help="folder of the queries")],
    queries: Annotated[Path, typer.Option(help="lines `name MODEL width height params...`")],
    output: Annotated[Path, typer.Option(help="file for poses, cam_from_world")],
    config: Annotated[Path | None, typer.Option(help="YAML, as in config/paper")] = None,
    pairs: Annotated[Path | None, typer.Option(help="lines `query reference`")] = None,
    descriptors: Annotated[
        list[Path] | None, typer.Option(help="HDF5, for the mean pose of references; repeatable")
    ] = None,
    inliers: Annotated[
        Path | None, typer.Option(help="instead of --pairs: hloc's log, whose poses are refined")
    ] = None,
    priors: Annotated[
        Path | None, typer.Option(help="with --inliers: poses to refine instead of the log's")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N")] = None,
) -> None:
    """Localize images as PixLoc's released code does, or refine the poses of hloc.

    Writes a pose for every query, as in published results: a failed one keeps its initial pose.

    Example: pixloc localize-published --colmap sfm --references db --images query --queries
    queries.txt --pairs pairs.txt --config config/paper/cambridge.yaml --output poses.txt
    """
    from pixloc_ros.alignment.published import PublishedLocalizer
    from pixloc_ros.common.atomic_write import check_writable
    from pixloc_ros.config.published import PublishedConfig, load_published
    from pixloc_ros.geometry.trajectory import write_poses
    from pixloc_ros.maps.files import hloc
    from pixloc_ros.maps.files.colmap import read_model
    from pixloc_ros.maps.reference_selection import ReferenceModel

    if (pairs is None) == (inliers is None):
        raise ConfigError("give either --pairs or --inliers")
    cameras = hloc.read_cameras(queries)
    options = load_published(config, device) if config else PublishedConfig()

    def read_reference(name: str) -> Image:
        return _read(references / name)

    check_writable(output)
    known = ReferenceModel.of(read_model(colmap))
    localizer = PublishedLocalizer(options, known, read_reference)
    if inliers is not None:
        run = _refiner(localizer, inliers, priors)
    else:
        assert pairs is not None
        run = _by_pairs(localizer, pairs, descriptors or [], list(cameras))
    found: dict[str, PublishedResult] = {}
    try:
        for name, camera in track(cameras.items(), "localizing", len(cameras)):
            result = run(name, _read(images / name), camera)
            if result is not None:
                found[name] = result
    except BaseException as error:  # also Ctrl-C
        if found:
            partial = output.with_suffix(f".partial{output.suffix}")
            write_poses(partial, {name: result.T_cam_world for name, result in found.items()})
            error.add_note(f"{partial} has the first {len(found)} poses")
        raise
    write_poses(output, {name: result.T_cam_world for name, result in found.items()})
    aligned = sum(result.success for result in found.values())
    console = Console()
    console.print(f"aligned {aligned} of {len(cameras)} images", highlight=False)
    console.print(f"poses: {output}", markup=False, soft_wrap=True)


def _by_pairs(
    localizer: PublishedLocalizer, pairs: Path, descriptors: list[Path], names: list[str]
) -> Localize:
    from pixloc_ros.maps.files import hloc

    listed = hloc.read_pairs(pairs)
    ranked = {
        name: [one for one in listed.get(name, ()) if one in localizer.known.images]
        for name in names
    }
    if not any(ranked.values()):
        raise DataError(f"{pairs} pairs no query, as '{names[0]}', with an image of the model")
    similarity = _similarity(descriptors, ranked) if localizer.config.mean_initial_pose else {}

    def run(name: str, image: Image, camera: Camera) -> PublishedResult | None:
        if not ranked[name]:
            return None
        return localizer.localize(image, camera, ranked[name], similarity.get(name))

    return run


def _similarity(descriptors: list[Path], ranked: Mapping[str, list[str]]) -> dict[str, list[float]]:
    from pixloc_ros.maps.files import hloc

    if not descriptors:
        raise ConfigError("mean_initial_pose weights references by --descriptors: give them")
    names = list(dict.fromkeys([*ranked, *(one for listed in ranked.values() for one in listed)]))
    of = dict(zip(names, hloc.read_descriptors(descriptors, names), strict=True))
    return {q: [float(of[q] @ of[one]) for one in listed] for q, listed in ranked.items()}


def _refiner(localizer: PublishedLocalizer, inliers: Path, priors: Path | None) -> Localize:
    from pixloc_ros.geometry.trajectory import read_poses
    from pixloc_ros.maps.files.hloc_logs import read_logs

    logs = read_logs(inliers)
    poses = read_poses(priors) if priors else {}

    def run(name: str, image: Image, camera: Camera) -> PublishedResult | None:
        log = logs.get(name)
        if log is None or (log.T_cam_world is None and name not in poses):
            return None
        return localizer.refine(image, camera, log, poses.get(name))

    return run


def _read(path: Path) -> Image:
    from pixloc_ros.common import image_files

    image = image_files.read(path)
    if image is None:
        raise DataError(f"{path} is missing or no image")
    return image
