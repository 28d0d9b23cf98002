"""Refine poses with the points that hloc matched, as PixLoc does (section 5.3).

hloc's log names points by their ids in a COLMAP model. A map numbers points anew, so the model is
needed to find them, by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from pixloc_ros.errors import DataError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.hloc_logs import QueryLog, read_logs
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.file_priors import NamedPoses, map_from_world, poses_in_map
from pixloc_ros.types import Frame, Matrix, PosePrior

SAME_POINT_M = 1e-3  # maps store positions in float32


@dataclass(frozen=True, slots=True)
class LoggedMatches:
    """Proposes a frame's pose, to be aligned with its matched points only."""

    poses: NamedPoses
    point_ids: Mapping[str, NDArray[np.int32]]  # (N,) ids in the map, by frame name

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose the pose of the frame's name with its matched points; none if it is unknown."""
        ids = self.point_ids.get(frame.name)
        if ids is None:
            return []
        return [replace(prior, point_ids=ids) for prior in self.poses.propose(frame)]


def read_logged_matches(
    map_: Map,
    file: Path,
    model: ColmapModel,
    names: Sequence[str],
    sigma: tuple[float, float],
    given: Mapping[str, Matrix] | None = None,
) -> LoggedMatches:
    """Read hloc's log: the inliers of each query, and its pose.

    model: the one that the log and the map were made with.
    sigma: of the poses in metres and degrees, per axis.
    given: T_cam_world to refine instead of the log's poses.

    Raises DataError for a file that is not a log or has none of the names, and if the map has none
    of the model's points.
    """
    logs = read_logs(file)
    hloc.check_same_names(file, logs, names, "log")
    if given is None:
        given = {n: log.T_cam_world for n, log in logs.items() if log.T_cam_world is not None}
    ids = _ids_in_map(map_, model, file)
    return LoggedMatches(
        poses_in_map(map_, given, sigma),
        {name: _inliers(logs[name], model, ids) for name in names if name in logs},
    )


def _ids_in_map(map_: Map, model: ColmapModel, file: Path) -> NDArray[np.int32]:
    """Return (P,) the map's id of each point of the model; -1 for points missing from the map."""
    tiles = [tile for _, tile in map_.tiles.sound()]
    of_map = np.unique(np.concatenate([tile.point_id for tile in tiles]))
    points_map = se3.transform(map_from_world(map_), model.points_world)
    distance, index = KDTree(map_.points_map()).query(points_map, distance_upper_bound=SAME_POINT_M)
    known = np.isfinite(distance)
    if not known.any():
        raise DataError(
            f"{file}: the map has no point of the model: give the model that it was built from"
        )
    ids = np.full(len(points_map), -1, np.int32)
    ids[known] = of_map[index[known]]
    return ids


def _inliers(log: QueryLog, model: ColmapModel, ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the map's ids (N,), ascending, of the inliers of a query's pose."""
    points = np.array(log.points, np.int64)[np.array(log.inliers, bool)]
    points = np.unique(points[np.isin(points, model.point_ids)])
    found = ids[np.searchsorted(model.point_ids, points)]
    return np.unique(found[found >= 0])
