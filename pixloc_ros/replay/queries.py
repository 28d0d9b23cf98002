"""Localize a list of images with priors, in the file formats of hloc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.evaluation.frames import frame_result, write_frames
from pixloc_ros.evaluation.trajectory import read_poses, write_poses
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import COLMAP_MODELS, Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.schema import as_matrix
from pixloc_ros.replay.progress import Progress, silent
from pixloc_ros.results import Estimate, Frame, PosePrior, Reason, Status

COLUMNS = "name MODEL width height params..."


@dataclass(frozen=True, slots=True)
class Query:
    """One image to localize."""

    name: str  # path below the images folder, unique
    camera: Camera


def read_queries(path: Path) -> list[Query]:
    """Read `name MODEL width height params...` lines; raises DataError with the wrong line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(f"cannot read queries from {path}: {reason}") from None
    queries: dict[str, Query] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            query = _query(line.split(), f"{path}:{number}")
            if query.name in queries:
                raise DataError(f"{path}:{number}: image {query.name} is listed twice")
            queries[query.name] = query
    if not queries:
        raise DataError(f"{path}: holds no queries; expected lines `{COLUMNS}`")
    return list(queries.values())


def localize_queries(
    localizer: Localizer,
    images_dir: Path,
    queries: Iterable[Query],
    priors: dict[str, Matrix],
    sigma_m: float,
    sigma_deg: float,
) -> Iterator[Estimate]:
    """An estimate per query, in order; the camera is the base, so T_map_base is T_map_cam.

    priors: T_cam_world (4, 4) by name, in the world of the model that the map was built from;
    sigma_m, sigma_deg: how far off they may be, per axis.
    """
    covariance = np.diag([sigma_m**2] * 3 + [np.deg2rad(sigma_deg) ** 2] * 3)
    T_map_world = map_from_world(localizer)
    for index, query in enumerate(queries):
        image_bgr = cv2.imread(str(images_dir / query.name), cv2.IMREAD_COLOR)
        if image_bgr is None:
            message = f"{images_dir / query.name} cannot be decoded"
            yield Estimate(Status.FAILED, Reason.BAD_IMAGE, message, index, query.name)
            continue
        image_rgb = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
        frame = Frame(image_rgb, query.camera, index, np.eye(4), query.name)
        prior = None
        if query.name in priors:
            T_map_cam = T_map_world @ se3.inverse(priors[query.name])
            prior = PosePrior(T_map_cam, covariance, "file", index)
        yield localizer.localize(frame, prior)


def localize_files(
    localizer: Localizer,
    images_dir: Path,
    queries_file: Path,
    priors_file: Path,
    output: Path,
    sigma_m: float,
    sigma_deg: float,
    progress: Progress = silent,
) -> list[Estimate]:
    """Write the poses (cam_from_world) of localized images, and a record of every one beside it.

    Raises DataError for files that are wrong, images that do not exist and priors of other images.
    """
    queries, priors = read_queries(queries_file), read_poses(priors_file)
    _check_names(queries, priors, images_dir, priors_file)
    frames = localize_queries(localizer, images_dir, queries, priors, sigma_m, sigma_deg)
    estimates = list(progress(frames, "localizing", len(queries)))
    T_map_world = map_from_world(localizer)
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
    """Where the records of all images go, with the reasons of those that were not localized."""
    return output.with_suffix(".frames.jsonl")


def map_from_world(localizer: Localizer) -> Matrix:
    """T_map_world (4, 4); world is that of the model that the map was built from."""
    T_map_world = as_matrix(localizer.map.metadata.T_map_world)
    assert T_map_world is not None
    return T_map_world


def _query(words: list[str], where: str) -> Query:
    at = next((i for i, word in enumerate(words) if i > 0 and word in COLMAP_MODELS), None)
    if at is None:
        raise DataError(f"{where}: expected `{COLUMNS}` with a MODEL of {', '.join(COLMAP_MODELS)}")
    try:
        width, height, *params = (float(word) for word in words[at + 1 :])
        camera = Camera.from_colmap(words[at], round(width), round(height), params)
    except (ValueError, CameraError) as error:
        raise DataError(f"{where}: {error}") from None
    return Query(" ".join(words[:at]), camera)


def _check_names(
    queries: list[Query], priors: dict[str, Matrix], images_dir: Path, priors_file: Path
) -> None:
    for query in queries:
        if not (images_dir / query.name).is_file():
            raise DataError(f"image {images_dir / query.name} does not exist; check --images")
    if not any(query.name in priors for query in queries):
        raise DataError(
            f"no query has a prior: queries are named like '{queries[0].name}', "
            f"{priors_file} has '{next(iter(priors))}'"
        )
