"""Scenes of posed images: which points each image sees, and which images make pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build import visibility
from pixloc_ros.maps.build.feature_extraction import visible_points
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.training.data_config import ViewsConfig

Index = NDArray[np.intp]
MISSING = "image missing"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingView:
    """A posed image. seen: (M,) ascending indices of the points it sees, none of them hidden.

    turns: quarters by which the file is turned counter-clockwise; camera and pose are of the
    turned image. depth: file of its depth map, turned as the image is.
    """

    path: Path
    camera: Camera
    T_cam_world: Matrix  # (4, 4)
    seen: Index
    turns: int = 0
    depth: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingScene:
    """Views of points (P, 3), and pairs (K, 2) of reference and query among the views."""

    name: str
    views: tuple[TrainingView, ...]
    points_world: Matrix
    pairs: Index


def views_of_model(
    model: ColmapModel, images: Path, config: ViewsConfig, skipped: Counter[str]
) -> list[TrainingView]:
    """The images of a model that are in the folder; the others are counted."""
    usable = model.errors_px <= config.max_error_px
    views = []
    for image in model.images:
        if not (images / image.name).is_file():
            skipped[MISSING] += 1
            continue
        seen, _ = visible_points(image, model, usable, config.max_error_px)
        camera = model.cameras[image.camera_id]
        views.append(TrainingView(images / image.name, camera, image.T_cam_world, seen))
    return views


def pair_up(
    name: str,
    views: Sequence[TrainingView],
    points_world: Matrix,
    config: ViewsConfig,
    queries: Sequence[int] | None = None,
    overlap: Matrix | None = None,
) -> TrainingScene:
    """The scene with all pairs that share enough, and look about the same way.

    queries: views that are queries only, and the only ones; without them each view is both.
    overlap: (V, V) share of each view's points that each other one sees, instead of counting.
    """
    shared = _shared(views, len(points_world))
    seen = np.array([len(view.seen) for view in views])
    reference, query = shared.coords
    share = shared.data / np.maximum(seen[reference], 1)
    if overlap is not None:
        share = overlap[reference, query]
    good = (reference != query) & (shared.data >= config.min_shared)
    good &= (share >= config.overlap[0]) & (share <= config.overlap[1])
    T_cam_world = np.stack([view.T_cam_world for view in views])
    turn_rad = se3.angles_rad(T_cam_world[reference], T_cam_world[query])
    good &= np.rad2deg(turn_rad) <= config.max_turn_deg
    if config.max_baseline is not None:
        good &= _baselines(views, reference, query) <= config.max_baseline
    if queries is not None:
        good &= np.isin(query, queries) & ~np.isin(reference, queries)
    pairs = np.column_stack([reference[good], query[good]]).astype(np.intp)
    return TrainingScene(name, tuple(views), points_world, pairs)


def _shared(views: Sequence[TrainingView], point_count: int) -> coo_array:
    """Counts of points that two views see, where there are any."""
    rows = np.repeat(np.arange(len(views)), [len(view.seen) for view in views])
    columns = np.concatenate([view.seen for view in views])
    ones = np.ones(len(rows), np.int32)
    sees = csr_array((ones, (rows, columns)), shape=(len(views), point_count))
    return coo_array(sees @ sees.T)


def _baselines(views: Sequence[TrainingView], reference: Index, query: Index) -> Matrix:
    """(K,) distances between views that are paired."""
    places = se3.inverse(np.stack([view.T_cam_world for view in views]))[:, :3, 3]
    return np.linalg.norm(places[reference] - places[query], axis=-1)


def not_hidden(view: TrainingView, points_world: Matrix) -> Index:
    """Which of view.seen are in its image and behind none of the others, where seen is a guess.

    Sparse points, as of trees, seem to hide more than they do; those in doubt are left out.
    """
    if not len(view.seen):
        return view.seen
    zero = points_world[view.seen].mean(0)
    cloud = visibility.prepare(points_world[view.seen] - zero)
    T_local_cam = se3.inverse(view.T_cam_world)
    T_local_cam[:3, 3] -= zero
    visible, _, _ = visibility.visible(cloud, view.camera, T_local_cam, (0.0, np.inf))
    return view.seen[np.sort(visible)]
