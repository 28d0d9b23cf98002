"""A COLMAP model from images with given poses, which stay as they are. Needs pycolmap."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import pose_check
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import PosedImage, read_image
from pixloc_ros.maps.schema import file_sha256

MAX_TURN_DEG = 60.0  # images turned by more share little
NEIGHBOURS = 8  # of each image
CANDIDATES = 64  # nearest images among which neighbours are sought


@dataclass(frozen=True, slots=True)
class TriangulationReport:
    """How well images and poses agree."""

    points: int
    mean_error_px: float  # of reprojection
    mean_track_length: float  # images per point
    unseen: tuple[str, ...]  # images that see no point

    def __str__(self) -> str:
        text = (
            f"{self.points} points triangulated, {self.mean_error_px:.2f} px mean reprojection "
            f"error, seen by {self.mean_track_length:.1f} images on average"
        )
        return text + (f"; {len(self.unseen)} images see none" if self.unseen else "")


def triangulate(
    images: Sequence[PosedImage], progress: Progress = silent, work: Path | None = None
) -> tuple[ColmapModel, TriangulationReport]:
    """Match near images and triangulate what they share; the model's world is the map.

    work: the work_folder of a build, where keypoints and matches are kept for the next try.
    Raises MapError without pycolmap, for images that share nothing, and for poses that contradict
    the images (naming the images, or the convention that would fit).
    """
    check_posed(images)
    T_map_cam = np.stack([image.T_map_cam for image in images])
    zero = np.round(np.median(T_map_cam[:, :3, 3], axis=0))  # COLMAP's tolerances are near zero
    T_map_cam[:, :3, 3] -= zero
    with nullcontext(work) if work else tempfile.TemporaryDirectory(prefix="pixloc-") as folder:
        run = ColmapRun(Path(folder) / _digest(images), images, progress)
        run.extract()
        run.match(near_pairs(T_map_cam))
        names, matches = [image.name for image in images], run.matches()
        pose_check.check(names, T_map_cam, matches)
        model = run.triangulate(T_map_cam)
    pose_check.check_points(names, matches, _points_seen(model))
    model = _named(model, images, zero)
    return model, _report(model)


def check_posed(images: Sequence[PosedImage]) -> None:
    """Raise MapError unless there are two images or more, of distinct names and places.

    And unless each of them can be read, and is of the size of its camera.
    """
    if len(images) < 2:
        raise MapError(f"{len(images)} posed image(s): a map needs at least two")
    names = [image.name for image in images]
    if len(set(names)) < len(names):
        raise MapError(f"image '{next(n for n in names if names.count(n) > 1)}' has two poses")
    places = np.stack([image.T_map_cam[:3, 3] for image in images])
    if np.ptp(places, axis=0).max() == 0:
        raise MapError("all posed images are at one place; give poses with translations")
    for image in images:
        read_image(image.path, image.camera)


def near_pairs(T_map_cam: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (i < j) of poses (N, 4, 4): each with the nearest ones that look the same way."""
    places, forward = T_map_cam[:, :3, 3], T_map_cam[:, :3, 2]
    count = min(CANDIDATES, len(places))
    _, order = cKDTree(places).query(places, k=count)
    pairs = set()
    for i, others in enumerate(order):
        alike = forward[others] @ forward[i] > np.cos(np.deg2rad(MAX_TURN_DEG))
        for j in others[alike & (others != i)][:NEIGHBOURS].tolist():
            pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


def _digest(images: Sequence[PosedImage]) -> str:
    """Stands for all that keypoints and matches depend on."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(file_sha256(image.path).encode())
        digest.update(repr(image.camera.to_colmap()).encode() + image.T_map_cam.tobytes())
    return f"colmap-{digest.hexdigest()}"


def _named(
    model: ColmapModel, images: Sequence[PosedImage], zero: NDArray[np.float64]
) -> ColmapModel:
    """The model with the names and poses that were given, to the last digit."""
    renamed = (
        replace(
            image,
            name=images[int(Path(image.name).stem)].name,
            T_cam_world=se3.inverse(images[int(Path(image.name).stem)].T_map_cam),
        )
        for image in model.images
    )
    return replace(model, images=tuple(renamed), points_world=model.points_world + zero)


def _points_seen(model: ColmapModel) -> list[int]:
    return [int((image.point_ids >= 0).sum()) for image in model.images]


def _report(model: ColmapModel) -> TriangulationReport:
    seen = _points_seen(model)
    return TriangulationReport(
        points=len(model.point_ids),
        mean_error_px=float(model.errors_px.mean()),
        mean_track_length=float(sum(seen) / len(model.point_ids)),
        unseen=tuple(i.name for i, count in zip(model.images, seen, strict=True) if not count),
    )
