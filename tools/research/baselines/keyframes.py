"""What a matcher finds in the keyframes of a map: keypoints, and points of their own.

The keyframes near a prior are matched with each other, and what they agree on is triangulated with
the poses of the map. Other keypoints get the depth of the nearest map point that their keyframe
saw; each then lies on its own ray, so only its depth is approximate.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.rays import rays as rays_of
from pixloc_ros.maps.files.posed_images import read_image
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.serving_keyframes import choose_keyframes
from research.baselines.matcher import Keypoints, Matcher
from research.baselines.triangulation import triangulate

MAX_MISS_PX = 2.0  # between a keypoint and the point triangulated from it
MAX_LIFT_PX = 6.0  # between a keypoint and the map point that lends its depth


class KeyframeKeypoints(NamedTuple):
    """Keypoints of a keyframe and their rays (N, 3), of length 1, in the axes of the map."""

    keypoints: Keypoints
    rays: NDArray[np.float64]


class Landmarks(NamedTuple):
    """Keypoints of a keyframe and their points (N, 3) in the map, NaN where unknown."""

    keypoints: Keypoints
    points_map: NDArray[np.float64]


class BaselineKeyframes:
    """Detected and matched when first asked for, then kept.

    images: folder that the names of the map's keyframes start from.
    """

    def __init__(self, matcher: Matcher, map_: Map, images: Path, config: ViewConfig):
        self.matcher, self.map, self.images, self.config = matcher, map_, images, config
        self._views: dict[int, KeyframeKeypoints] = {}
        self._pairs: dict[tuple[int, int], NDArray[np.intp]] = {}

    def near(self, T_map_cam: NDArray[np.float64]) -> list[Landmarks]:
        """Landmarks of the keyframes that our own view would use.

        Raises MapError where the image of one cannot be read.
        """
        near, _ = self.map.keyframes_within(T_map_cam[:3, 3], self.config.max_distance_m)
        chosen = choose_keyframes(self.map, T_map_cam, near, self.config).tolist()
        return [self._landmarks(i, [j for j in chosen if j != i]) for i in chosen]

    def _landmarks(self, index: int, others: list[int]) -> Landmarks:
        view = self._view(index)
        rays = np.full((1 + len(others), *view.rays.shape), np.nan)
        rays[0] = view.rays
        for k, other in enumerate(others, 1):
            seen, seen_by_other = self._match(index, other)
            rays[k, seen] = self._view(other).rays[seen_by_other]
        centers = self.map.keyframe_T_map_cam[[index, *others], :3, 3]
        tolerance_rad = MAX_MISS_PX / float(self._camera(index).focal.mean())
        points_map = triangulate(centers, rays, tolerance_rad)
        known = np.isfinite(points_map)
        return Landmarks(view.keypoints, np.where(known, points_map, self._lift(index)))

    def _camera(self, index: int) -> Camera:
        return self.map.cameras[self.map.keyframe_camera[index]]

    def _view(self, index: int) -> KeyframeKeypoints:
        if index not in self._views:
            camera = self._camera(index)
            path = self.images / self.map.keyframe_names[index]
            keypoints = self.matcher.detect(read_image(path, camera))
            xy = rays_of(keypoints.pixels, camera)[:, :2]
            rays = np.column_stack([xy, np.ones(len(xy))])
            rays = rays @ self.map.keyframe_T_map_cam[index, :3, :3].T
            rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
            self._views[index] = KeyframeKeypoints(keypoints, rays)
        return self._views[index]

    def _match(self, index: int, other: int) -> NDArray[np.intp]:
        """Indices (2, M) of matching keypoints, those of `index` first."""
        if index > other:
            return self._match(other, index)[::-1]
        if (index, other) not in self._pairs:
            first, second = (self._view(i).keypoints for i in (index, other))
            self._pairs[index, other] = self.matcher.match(first, second).T
        return self._pairs[index, other]

    def _lift(self, index: int) -> NDArray[np.float64]:
        """Points (N, 3) of all keypoints, NaN where no map point is near."""
        T_map_cam, view = self.map.keyframe_T_map_cam[index], self._view(index)
        points_cam = se3.transform(se3.inverse(T_map_cam), self.map.points_seen_by(index))
        projected = self._camera(index).project(torch.from_numpy(points_cam))[0].numpy()
        _, nearest = cKDTree(projected.reshape(-1, 2)).query(
            view.keypoints.pixels, distance_upper_bound=MAX_LIFT_PX
        )
        range_m = np.append(np.linalg.norm(points_cam, axis=-1), np.nan)[nearest]
        return T_map_cam[:3, 3] + view.rays * range_m[:, None]
