"""Which references and points of a COLMAP model a query is aligned with, as published (PixLoc,
section 4): ranked references, their largest covisible group, their mean pose, their points.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.files.hloc_logs import QueryLog

SIMILARITY_POWER = 8  # of weights of references (Pion et al., 3DV 2020)


@dataclass(frozen=True)
class ReferenceModel:
    """A COLMAP model by image name, with the length of every track."""

    model: ColmapModel
    images: Mapping[str, ColmapImage]
    track_length: NDArray[np.int64]  # (P,)

    @classmethod
    def of(cls, model: ColmapModel) -> ReferenceModel:
        length = np.zeros(len(model.point_ids), np.int64)
        for image in model.images:
            np.add.at(length, _rows(model, image.point_ids[image.point_ids >= 0]), 1)
        return cls(model, {image.name: image for image in model.images}, length)

    def points_of(self, name: str, min_track_length: int) -> NDArray[np.intp]:
        """Rows (N,) of the points that an image sees, each once."""
        ids = self.images[name].point_ids
        rows = _rows(self.model, np.unique(ids[ids >= 0]))
        return rows[self.track_length[rows] >= min_track_length]


def largest_covisible_group(known: ReferenceModel, names: Sequence[str]) -> list[str]:
    """The most of some images that share points with each other, directly or by others of them."""
    seen = {name: set(known.points_of(name, 1).tolist()) for name in names}
    groups: list[list[str]] = []
    left = list(names)
    while left:
        group, frontier = [left[0]], [left.pop(0)]
        while frontier:
            points = seen[frontier.pop()]
            joined = [name for name in left if points & seen[name]]
            left = [name for name in left if name not in joined]
            group += joined
            frontier += joined
        groups.append(group)
    return max(groups, key=len)


def mean_pose(
    known: ReferenceModel, names: Sequence[str], similarity: NDArray[np.floating]
) -> Matrix:
    """T_cam_world (4, 4), the mean of the references' poses, weighted by similarity (N,)."""
    weights = np.asarray(similarity, np.float64) ** SIMILARITY_POWER
    T_world_cam = se3.inverse(np.stack([known.images[name].T_cam_world for name in names]))
    rotation = Rotation.from_matrix(T_world_cam[:, :3, :3]).mean(weights)
    centre = np.average(T_world_cam[:, :3, 3], axis=0, weights=weights)
    return se3.inverse(se3.make(rotation.as_matrix(), centre))


def observed_points(
    known: ReferenceModel, names: Sequence[str], min_track_length: int
) -> dict[str, NDArray[np.intp]]:
    """Rows of the points that each of some references sees."""
    return {name: known.points_of(name, min_track_length) for name in names}


def logged_references(
    known: ReferenceModel, log: QueryLog, count: int, min_inliers: int
) -> list[str]:
    """The references with the most inliers in hloc's log, of those with more than min_inliers."""
    name_of = {image.image_id: image.name for image in known.model.images}
    counts = np.zeros(len(log.references), np.int64)
    for observed, inlier in zip(log.observed_by, log.inliers, strict=True):
        if inlier:
            np.add.at(counts, list(observed), 1)
    order = np.argsort(-counts, kind="stable")
    ids = [log.references[i] for i in order if counts[i] > min_inliers][:count]
    return [name_of[i] for i in ids if i in name_of]


def logged_points(
    known: ReferenceModel,
    log: QueryLog,
    names: Collection[str],
    inliers_only: bool,
    min_track_length: int,
) -> dict[str, NDArray[np.intp]]:
    """Rows of the points that hloc matched in each of some references, or of its inliers."""
    name_of = {image.image_id: image.name for image in known.model.images}
    seen: dict[str, set[int]] = {name: set() for name in names}
    for point, observed, inlier in zip(log.points, log.observed_by, log.inliers, strict=True):
        if inlier or not inliers_only:
            for index in observed:
                name = name_of.get(log.references[index])
                if name in seen:
                    seen[name].add(point)
    found = {}
    for name, points in seen.items():
        ids = np.array(sorted(points), np.int64)
        rows = _rows(known.model, ids[np.isin(ids, known.model.point_ids)])
        found[name] = rows[known.track_length[rows] >= min_track_length]
    return found


def _rows(model: ColmapModel, ids: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.searchsorted(model.point_ids, ids)
