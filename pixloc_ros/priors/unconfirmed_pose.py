"""Poses that no sensor measured: found by a search, or remembered from an earlier run."""

from __future__ import annotations

from dataclasses import replace

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.stamped_pose import StampedPose, carried
from pixloc_ros.types import Estimate, Matrix, PosePrior, Reason

LAST_POSE = "last_pose"
CONTRADICTION = "contradiction"  # a place that the image shows but the prior excluded
SOURCES = ("retrieval", LAST_POSE, CONTRADICTION)  # of priors that no sensor measured


def source_of(estimate: Estimate) -> str:
    """Return the source of an estimate's prior if no sensor measured it; empty otherwise."""
    source = estimate.prior.source if estimate.prior else ""
    return source if source in SOURCES else ""


class UnconfirmedPose:
    """The pose that the last frame found, not yet confirmed, and the pose of an earlier run."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._found: StampedPose | None = None
        self._remembered: Matrix | None = None

    def clear(self) -> None:
        """Forget both poses: something better is known, or everything is to be forgotten."""
        self._found = self._remembered = None

    def remember(self, T_map_base: Matrix) -> None:
        """Take the pose (4, 4) at the end of an earlier run."""
        self._remembered = T_map_base

    def forget_remembered(self) -> None:
        """Forget the pose of the earlier run, which did not help."""
        self._remembered = None

    def take(self, found: StampedPose | None, source: str) -> None:
        """Take the pose that the last frame found from a prior of this source; None: no pose."""
        self._found = replace(found, source=source) if found and source else None

    def take_contradiction(self, estimate: Estimate, max_wrong_probability: float) -> None:
        """Take the place that the last image shows although its prior excludes it.

        The next frame then decides whether the vehicle is there.
        """
        if estimate.reason is not Reason.FAR_FROM_PRIOR:
            return
        found, covariance = estimate.candidate_T_map_base, estimate.candidate_covariance
        probability = estimate.wrong_probability
        if found is None or covariance is None or probability is None:
            return
        if probability <= max_wrong_probability:
            self._found = StampedPose(found, covariance, estimate.stamp_ns, CONTRADICTION)

    def read(self, odometry: OdometryBuffer) -> None:
        """Use odometry that came after the frame."""
        self._found = self._found and self._found.read(odometry)

    def found(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """Return the pose that the last frame found, carried on to a stamp."""
        found, config = self._found, self._config.current.priors
        if found is None or not found.within(stamp_ns, config.max_coast_s):
            return None
        return carried(found, stamp_ns, odometry, config)

    def remembered(self, stamp_ns: int) -> PosePrior | None:
        """Return the pose of the earlier run, with large sigmas: the vehicle may have moved."""
        if self._remembered is None:
            return None
        config = self._config.current.priors
        covariance = diagonal(config.last_pose_sigma_m, config.last_pose_sigma_deg)
        return PosePrior(self._remembered, covariance, LAST_POSE, stamp_ns)
