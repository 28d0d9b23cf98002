"""A localizer that matches keypoints with those of the nearest keyframes, and solves for the pose.

It works on the map as it is. A keyframe's keypoints get their depth from the nearest map point
that the keyframe saw; each then lies on its own ray, so only its depth is approximate, which
hardly matters seen from nearby.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.choice import choose_keyframes
from pixloc_ros.maps.observing import read_image
from pixloc_ros.maps.store import Map
from pixloc_ros.peers.disk import DiskLightGlue
from pixloc_ros.peers.matcher import Keypoints, Matcher, SiftRatio
from pixloc_ros.peers.pnp import normalized, solve_pnp
from pixloc_ros.results import Estimate, Frame, Matrix, PosePrior, Reason, Status
from pixloc_ros.stopwatch import Stopwatch

MAX_LIFT_PX = 6.0  # between a keypoint and the map point that lends its depth
MIN_INLIERS = 12

MATCHERS: dict[str, Callable[[str], Matcher]] = {
    "sift": lambda device: SiftRatio(),
    "disk_lightglue": DiskLightGlue,
}


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Keypoints of a keyframe and their points (N, 3) in the map, NaN where unknown."""

    keypoints: Keypoints
    points_map: NDArray[np.float64]


class PeerLocalizer:
    """Has the `localize` of `pixloc_ros.localizer.Localizer`. The prior chooses keyframes only.

    images: folder that the names of the map's keyframes start from.
    """

    def __init__(self, matcher: Matcher, map_: Map, images: Path, config: Config):
        self.matcher, self.map, self.images, self.config = matcher, map_, images, config
        self._landmarks: dict[int, Landmarks] = {}

    def localize(self, frame: Frame, prior: PosePrior | None) -> Estimate:
        """The pose that most matches agree on. Raises MapError for a missing keyframe image."""
        if prior is None:
            return _failed(frame, Reason.NO_PRIOR, "no prior to choose keyframes by")
        watch = Stopwatch()
        nearest = self._nearest(prior.T_map_base @ frame.T_base_cam)
        landmarks = [self._keyframe(i) for i in nearest]  # prepared with a map, so not timed
        with watch("features"):
            query = self.matcher.detect(frame.image_rgb)
        with watch("matching"):
            points_map, pixels = self._correspond(query, landmarks)
        with watch("pose"):
            found = solve_pnp(points_map, pixels, frame.camera)
        estimate = _estimate(frame, found, len(pixels))
        return replace(estimate, prior=prior, timing_ms=watch.timing_ms)

    def _nearest(self, T_map_cam: NDArray[np.float64]) -> list[int]:
        near, _ = self.map.keyframes_within(T_map_cam[:3, 3], self.config.view.max_distance_m)
        return choose_keyframes(self.map, T_map_cam, near, self.config.view).tolist()

    def _keyframe(self, index: int) -> Landmarks:
        if index not in self._landmarks:
            camera = self.map.cameras[self.map.keyframe_camera[index]]
            image_rgb = read_image(self.images / self.map.keyframe_names[index], camera)
            keypoints = self.matcher.detect(image_rgb)
            points_map = self._lift(index, camera, keypoints.pixels)
            self._landmarks[index] = Landmarks(keypoints, points_map)
        return self._landmarks[index]

    def _lift(self, index: int, camera: Camera, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Points (N, 3) of pixels (N, 2) of a keyframe, NaN where no map point is near."""
        T_map_cam = self.map.keyframe_T_map_cam[index]
        points_cam = se3.transform(se3.inverse(T_map_cam), self.map.points_seen_by(index))
        projected = camera.project(torch.from_numpy(points_cam))[0].numpy()
        _, nearest = cKDTree(projected.reshape(-1, 2)).query(
            pixels, distance_upper_bound=MAX_LIFT_PX
        )
        depth_m = np.append(points_cam[:, 2], np.nan)[nearest]  # none is numbered after the last
        rays = np.column_stack([normalized(camera, pixels), np.ones(len(pixels))])
        return se3.transform(T_map_cam, rays * depth_m[:, None])

    def _correspond(
        self, query: Keypoints, keyframes: list[Landmarks]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Points (M, 3) in the map and pixels (M, 2) of the query that they were matched with."""
        points, pixels = [np.zeros((0, 3))], [np.zeros((0, 2), np.float32)]
        for keyframe in keyframes:
            of_query, of_keyframe = self.matcher.match(query, keyframe.keypoints).T
            known = np.isfinite(keyframe.points_map[of_keyframe]).all(-1)
            points.append(keyframe.points_map[of_keyframe[known]])
            pixels.append(query.pixels[of_query[known]])
        return np.concatenate(points), np.concatenate(pixels)


def _estimate(frame: Frame, found: tuple[Matrix, int] | None, matches: int) -> Estimate:
    if found is None:
        return _failed(frame, Reason.FEW_INLIERS, f"{matches} matches agree on no pose")
    T_map_cam, inliers = found
    T_map_base = T_map_cam @ se3.inverse(frame.T_base_cam)
    message = f"{inliers} of {matches} matches agree"
    if inliers < MIN_INLIERS:
        failed = _failed(frame, Reason.FEW_INLIERS, message)
        return replace(failed, candidate_T_map_base=T_map_base)
    return Estimate(
        Status.OK,
        Reason.OK,
        message,
        frame.stamp_ns,
        frame.name,
        T_map_base=T_map_base,
        candidate_T_map_base=T_map_base,
    )


def _failed(frame: Frame, reason: Reason, message: str) -> Estimate:
    return Estimate(Status.FAILED, reason, message, frame.stamp_ns, frame.name)
