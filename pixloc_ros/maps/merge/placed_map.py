"""What the keyframes of a map observe, in the frame of another map; features when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.depth_uncertainty import PointImage, point_information
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import unit_rows

UNKNOWN_SIGMA_M = 100.0  # of a point along a direction that no keyframe tells


@dataclass(frozen=True)
class PlacedMap:
    """The points and observations of a map.

    Arrays over points are indexed by their ids; ids that no point has are NaN there.
    """

    name: str
    map: Map
    T_new_cam: Matrix  # (K, 4, 4) of the keyframes
    points: Matrix  # (P, 3) in the new frame
    error_px: NDArray[np.float32]  # (P,)
    priority: NDArray[np.float32]  # (P,)
    depth_sigma: NDArray[np.float32]  # (P,)
    keyframe: NDArray[np.int32]  # (O,) of the observations, ascending
    point: NDArray[np.int32]  # (O,)

    @classmethod
    def of(cls, name: str, map_: Map, T_new_map: Matrix) -> PlacedMap:
        """Read the observations of a map. Raises MapError where a tile is refused."""
        count = map_.point_id_end
        points = np.full((count, 3), np.nan)
        error_px, priority, sigma = (np.full(count, np.nan, np.float32) for _ in range(3))
        keyframes, observed = [], []
        for index in range(len(map_.tiles)):
            tile = map_.tiles.tile(index)
            points[tile.point_id] = se3.transform(T_new_map, tile.points_map())
            error_px[tile.point_id] = tile.point_error_px
            priority[tile.point_id] = tile.point_priority
            sigma[tile.point_id] = tile.point_depth_sigma
            keyframes.append(np.repeat(tile.keyframes, np.diff(tile.observation_offsets)))
            observed.append(tile.point_id[tile.observation_point])
        keyframe = np.concatenate(keyframes)
        order = np.argsort(keyframe, kind="stable")
        return cls(
            name=name,
            map=map_,
            T_new_cam=T_new_map @ map_.keyframe_T_map_cam,
            points=points,
            error_px=error_px,
            priority=priority,
            depth_sigma=sigma,
            keyframe=keyframe[order],
            point=np.concatenate(observed)[order],
        )

    def moved(self, T_new_cam: Matrix, points: Matrix) -> PlacedMap:
        """The same with keyframes and points elsewhere."""
        return replace(self, T_new_cam=T_new_cam, points=points)

    @cached_property
    def places(self) -> KDTree:
        """Positions of the keyframes."""
        return KDTree(self.T_new_cam[:, :3, 3])

    @cached_property
    def track_length(self) -> NDArray[np.int64]:
        """How many keyframes see each point (P,)."""
        return np.bincount(self.point, minlength=len(self.points))

    @cached_property
    def information(self) -> Matrix:
        """Inverse covariances (P, 3, 3) of the points, for a pixel of noise in the keyframes."""
        images = (
            PointImage(self.camera(keyframe), se3.inverse(self.T_new_cam[keyframe]), ids)
            for keyframe, ids in self.observed()
        )
        return point_information(self.points, images) + np.eye(3) / UNKNOWN_SIGMA_M**2

    def observed(self) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Every keyframe with the ids of the points that it sees, each once."""
        for keyframe in range(len(self.T_new_cam)):
            yield keyframe, self.seen_by(keyframe)

    def seen_by(self, keyframe: int) -> NDArray[np.int32]:
        """Ids (N,) of the points that a keyframe sees."""
        begin, end = np.searchsorted(self.keyframe, [keyframe, keyframe + 1])
        return self.point[begin:end]

    def camera(self, keyframe: int) -> Camera:
        return self._cameras[int(self.map.keyframe_camera[keyframe])]

    @cached_property
    def _cameras(self) -> tuple[Camera, ...]:
        return self.map.cameras

    def features(self, keyframe: int) -> NDArray[np.floating]:
        """Rows (N, C) of unit norm of what a keyframe sees, all levels side by side; 0 where its
        confidence is."""
        tile = self.map.tiles.tile(int(self.map.keyframe_tile[keyframe]))
        rows = torch.from_numpy(tile.observation_row[tile.observations(keyframe)]).long()
        levels = [
            unit_rows(feature[rows]) * (confidence[rows] > 0)[:, None]
            for feature, confidence in zip(tile.features, tile.confidences, strict=True)
        ]
        return torch.cat(levels, -1).numpy() / np.float32(np.sqrt(len(levels)))

    def pixels(self, keyframe: int, points: Matrix) -> tuple[Matrix, NDArray[np.bool_]]:
        """Pixels (N, 2) of points (N, 3) of the new frame in a keyframe, and which it has in
        view."""
        points_cam = se3.transform(se3.inverse(self.T_new_cam[keyframe]), points)
        pixels, in_view = self.camera(keyframe).project(torch.from_numpy(points_cam))
        return pixels.numpy(), in_view.numpy()
