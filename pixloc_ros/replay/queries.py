"""Localize a list of images, in hloc's file formats."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import confined
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.camera_poses import accepted_poses
from pixloc_ros.evaluation.frames import FrameResult, frame_result, write_frames
from pixloc_ros.evaluation.partial_run import partial_path, resumable_run
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
    done: Container[str] = (),
) -> Iterator[Estimate]:
    """Yield one estimate per query, in order; the camera is the base, so T_map_base is T_map_cam.

    done: names of queries to leave out.
    global_prior: proposes poses of queries. A query for which it has none is searched for on the
    whole map.
    """
    for index, query in enumerate(queries):
        if query.name in done:
            continue
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
    settings: Mapping[str, Any] | None = None,
) -> list[FrameResult]:
    """Localize images and write their poses (cam_from_world) to a file.

    A record of every image, localized or not, is written beside it, see `frames_path`. Until all
    are done, the records are in `partial_path`; if they are of an interrupted run, it is continued.

    settings: everything that the results depend on. Raises DataError if those of an interrupted
    run are others.
    """
    with resumable_run(partial_path(output), settings or {}) as run:
        left = len(queries) - len(run.done)
        estimates = localize_queries(localizer, images_dir, queries, global_prior, set(run.done))
        for estimate in progress(estimates, "localizing", left):
            run.add(frame_result(estimate))
        results = [run.done[query.name] for query in queries]
        write_poses(output, accepted_poses(results, map_from_world(localizer.map)))
        write_frames(frames_path(output), results)
    return results


def frames_path(output: Path) -> Path:
    """Return the file for the records of all images, with the reasons of failures."""
    return output.with_suffix(".frames.jsonl")


def _check_images(names: Iterable[str], images_dir: Path) -> None:
    for name in names:
        if not confined(images_dir, name, DataError).is_file():
            raise DataError(f"image {images_dir / name} does not exist; check --images")
