"""A localizer that matches keypoints with those of the nearest keyframes, and solves for the pose.

It works on the map as it is, and on the images that the map was made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pnp import PnpPose, solve_pnp
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status
from research.baselines.disk import DiskLightGlue
from research.baselines.keyframes import BaselineKeyframes, Landmarks
from research.baselines.matcher import Keypoints, Matcher, SiftRatio

MIN_INLIERS = 12

MATCHERS: dict[str, Callable[[str], Matcher]] = {
    "sift": lambda device: SiftRatio(),
    "disk_lightglue": DiskLightGlue,
}


class BaselineLocalizer:
    """Has the `localize` of `pixloc_ros.localizer.Localizer`. The prior chooses keyframes only.

    images: folder that the names of the map's keyframes start from.
    """

    def __init__(self, matcher: Matcher, map_: Map, images: Path, config: Config):
        self.matcher, self.keyframes = (
            matcher,
            BaselineKeyframes(matcher, map_, images, config.view),
        )

    def localize(self, frame: Frame, prior: PosePrior | None) -> Estimate:
        """The pose that most matches agree on. Raises MapError for a missing keyframe image."""
        if prior is None:
            message = "no prior to choose keyframes by"
            return Estimate(Status.FAILED, Reason.NO_PRIOR, message, frame.stamp_ns, frame.name)
        watch = Stopwatch()
        found, pixels = self.solve(frame, prior, watch)
        estimate = _estimate(frame, found, len(pixels))
        return replace(estimate, prior=prior, timing_ms=watch.timing_ms)

    def solve(
        self, frame: Frame, prior: PosePrior, watch: Stopwatch
    ) -> tuple[PnpPose | None, NDArray[np.float32]]:
        """The pose, and pixels (M, 2) of all matches. Raises MapError as `localize` does."""
        T_map_cam = prior.T_map_base @ frame.T_base_cam
        landmarks = self.keyframes.near(T_map_cam)  # could come with the map, so not timed
        with watch("features"):
            query = self.matcher.detect(frame.image_rgb)
        with watch("matching"):
            points_map, pixels = self._correspond(query, landmarks)
        with watch("pose"):
            return solve_pnp(points_map, pixels, frame.camera), pixels

    def _correspond(
        self, query: Keypoints, landmarks: list[Landmarks]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Points (M, 3) in the map and pixels (M, 2) of the query that they were matched with."""
        points, pixels = [np.zeros((0, 3))], [np.zeros((0, 2), np.float32)]
        for keypoints, points_map in landmarks:
            of_query, of_keyframe = self.matcher.match(query, keypoints).T
            known = np.isfinite(points_map[of_keyframe]).all(-1)
            points.append(points_map[of_keyframe[known]])
            pixels.append(query.pixels[of_query[known]])
        return np.concatenate(points), np.concatenate(pixels)


def _estimate(frame: Frame, found: PnpPose | None, matches: int) -> Estimate:
    T_map_base, inliers = None, 0
    if found is not None:
        inliers = len(found.inliers)
        T_map_base = found.T_map_cam @ se3.inverse(frame.T_base_cam)
    enough = inliers >= MIN_INLIERS
    return Estimate(
        Status.OK if enough else Status.FAILED,
        Reason.OK if enough else Reason.FEW_INLIERS,
        f"{inliers} of {matches} matches agree",
        frame.stamp_ns,
        frame.name,
        T_map_base=T_map_base if enough else None,
        candidate_T_map_base=T_map_base,
    )
