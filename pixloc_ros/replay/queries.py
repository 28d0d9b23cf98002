"""Localize a list of images, in hloc's file formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import confined
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.frames import frame_result, write_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.image_pyramid import PyramidLocalizer
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files import hloc
from pixloc_ros.priors.file_priors import map_from_world
from pixloc_ros.priors.global_prior import GlobalPrior
from pixloc_ros.types import Estimate, Frame, Reason, Status


@dataclass(frozen=True, slots=True)
class Query:
    """One image to localize."""

    name: str  # path below the images folder, unique
    camera: Camera


def read_queries(path: Path, images_dir: Path | None = None) -> list[Query]:
    """Read `name MODEL width height params...` lines.

    Raises DataError naming the wrong line; also, if a folder is given, for images missing there.
    """
    queries = [Query(name, camera) for name, camera in hloc.read_cameras(path).items()]
    if images_dir is not None:
        _check_images([query.name for query in queries], images_dir)
    return queries


def localize_queries(
    localizer: Localizer | PyramidLocalizer,
    images_dir: Path,
    queries: Iterable[Query],
    global_prior: GlobalPrior | None = None,
) -> Iterator[Estimate]:
    """Yield one estimate per query, in order; the camera is the base, so T_map_base is T_map_cam.

    global_prior: proposes poses of queries. A query for which it has none is searched for on the
    whole map.
    """
    for index, query in enumerate(queries):
        image_rgb = image_files.read(images_dir / query.name)
        if image_rgb is None:
            message = f"{images_dir / query.name} cannot be decoded"
            yield Estimate(Status.FAILED, Reason.BAD_IMAGE, message, index, query.name)
            continue
        frame = Frame(image_rgb, query.camera, index, np.eye(4), query.name)
        priors = global_prior.propose(frame) if global_prior else None
        yield localizer.localize(frame, priors)


def localize_files(
    localizer: Localizer | PyramidLocalizer,
    images_dir: Path,
    queries: list[Query],
    output: Path,
    global_prior: GlobalPrior | None = None,
    progress: Progress = silent,
) -> list[Estimate]:
    """Localize images and write their poses (cam_from_world) to a file.

    A record of every image, localized or not, is written beside it, see `frames_path`.
    """
    frames = localize_queries(localizer, images_dir, queries, global_prior)
    estimates = list(progress(frames, "localizing", len(queries)))
    T_map_world = map_from_world(localizer.map)
    write_poses(
        output,
        {
            e.name: se3.inverse(e.T_map_base) @ T_map_world
            for e in estimates
            if e.T_map_base is not None
        },
    )
    write_frames(frames_path(output), [frame_result(estimate) for estimate in estimates])
    return estimates


def frames_path(output: Path) -> Path:
    """Return the file for the records of all images, with the reasons of failures."""
    return output.with_suffix(".frames.jsonl")


def _check_images(names: Iterable[str], images_dir: Path) -> None:
    for name in names:
        if not confined(images_dir, name, DataError).is_file():
            raise DataError(f"image {images_dir / name} does not exist; check --images")
