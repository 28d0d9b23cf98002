"""Where to begin when nothing measured the place: at a pose found by a search, or remembered."""

from __future__ import annotations

from dataclasses import replace

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.stamped_pose import StampedPose, carried
from pixloc_ros.types import Estimate, Matrix, PosePrior, Reason

LAST_POSE = "last_pose"
CONTRADICTION = "contradiction"  # what an image says that its prior excluded
SOURCES = ("retrieval", LAST_POSE, CONTRADICTION)  # of priors that nothing measured


def source_of(estimate: Estimate) -> str:
    """The source of an estimate's prior, if nothing measured that; empty otherwise."""
    source = estimate.prior.source if estimate.prior else ""
    return source if source in SOURCES else ""


class UnconfirmedPose:
    """What the last frame found and no other confirms yet, and the pose of an earlier run."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._found: StampedPose | None = None
        self._remembered: Matrix | None = None

    def clear(self) -> None:
        """Something better is known, or nothing is to be known any more."""
        self._found = self._remembered = None

    def remember(self, T_map_base: Matrix) -> None:
        """Take the pose (4, 4) at the end of an earlier run."""
        self._remembered = T_map_base

    def forget(self) -> None:
        """The pose of the earlier run led nowhere."""
        self._remembered = None

    def find(self, found: StampedPose | None, source: str) -> None:
        """Take what the last frame found from a prior of this source; None: nothing."""
        self._found = replace(found, source=source) if found and source else None

    def contradict(self, estimate: Estimate, max_wrong_probability: float) -> None:
        """Take the place where the last frame's image says that the vehicle is, though its prior
        excludes it, so that the next frame tells whether it is there."""
        if estimate.reason is not Reason.FAR_FROM_PRIOR:
            return
        found, covariance = estimate.candidate_T_map_base, estimate.candidate_covariance
        probability = estimate.wrong_probability
        if found is None or covariance is None or probability is None:
            return
        if probability <= max_wrong_probability:
            self._found = StampedPose(found, covariance, estimate.stamp_ns, CONTRADICTION)

    def read(self, odometry: OdometryBuffer) -> None:
        """Take odometry that comes after the frame."""
        self._found = self._found and self._found.read(odometry)

    def found(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """What the last frame found, carried to this stamp."""
        found, config = self._found, self._config.current.priors
        if found is None or not found.within(stamp_ns, config.max_coast_s):
            return None
        return carried(found, stamp_ns, odometry, config)

    def remembered(self, stamp_ns: int) -> PosePrior | None:
        """The pose of the earlier run, vague: the vehicle may have been moved."""
        if self._remembered is None:
            return None
        config = self._config.current.priors
        covariance = diagonal(config.last_pose_sigma_m, config.last_pose_sigma_deg)
        return PosePrior(self._remembered, covariance, LAST_POSE, stamp_ns)
