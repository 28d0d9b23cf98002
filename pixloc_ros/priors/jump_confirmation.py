"""Decide whether an unexpected pose is accepted: only when several frames agree on it.

A single image may fit a wrong place well (repeated structures). Successive frames of a moving
vehicle that all fit the same wrong place are much rarer.
"""

from __future__ import annotations

import numpy as np

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.stamped_pose import StampedPose, carried
from pixloc_ros.types import PosePrior


class JumpConfirmation:
    """Accepts expected poses, and a jump once `jump_frames` of `jump_window` frames agree."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._candidates: list[StampedPose | None] = []

    def clear(self) -> None:
        """Forget earlier jumps."""
        self._candidates.clear()

    def miss(self) -> None:
        """Record a frame without a pose: it agrees with nothing but counts in the window."""
        self._remember(None)

    def objection(
        self,
        found: StampedPose,
        expected: PosePrior | None,
        odometry: OdometryBuffer,
        unmeasured: str = "",
    ) -> str:
        """Return why a pose is not accepted yet, in one line; empty if it is.

        expected: where odometry carries the last accepted pose, with covariance; None if unknown.
        unmeasured: source of the prior, if it was not measured; else empty.
        """
        config = self._config.current.priors
        sigmas = _sigmas(found, expected) if expected else np.inf
        if sigmas <= config.jump_sigma or (expected is None and not unmeasured):
            self.clear()
            return ""
        self._remember(found)
        agreeing, needed = self._agreeing(found, odometry), config.jump_frames
        if agreeing >= needed:
            self.clear()
            return ""
        why = f"found from a prior that nothing measured ({unmeasured})"
        if expected is not None:
            distance_m = se3.distance_m(found.T_map_base, expected.T_map_base)
            place = "where the last pose and the odometry put it"
            why = f"{distance_m:.1f} m ({sigmas:.0f} sigma) from {place}"
        return f"{why}; {agreeing} of {needed} frames agree"

    def _remember(self, candidate: StampedPose | None) -> None:
        config = self._config.current.priors
        window = max(config.jump_window, config.jump_frames)
        self._candidates = [*self._candidates, candidate][-window:]

    def _agreeing(self, found: StampedPose, odometry: OdometryBuffer) -> int:
        """Count the candidates that odometry carries to the same place as the newest."""
        return sum(
            candidate is not None
            and _sigmas(found, self._carried(candidate, found.stamp_ns, odometry))
            <= self._config.current.priors.jump_sigma
            for candidate in self._candidates
        )

    def _carried(
        self, candidate: StampedPose, stamp_ns: int, odometry: OdometryBuffer
    ) -> PosePrior:
        return carried(candidate, stamp_ns, odometry, self._config.current.priors)


def _sigmas(found: StampedPose, expected: PosePrior) -> float:
    """Return the Mahalanobis distance between two uncertain poses."""
    error = cov.base_error(found.T_map_base, expected.T_map_base)
    return float(np.sqrt(cov.mahalanobis2(error, expected.covariance + found.covariance)))
