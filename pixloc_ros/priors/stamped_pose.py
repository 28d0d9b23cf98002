"""A pose known at one moment, carried to another by odometry or by assumption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.config import PriorsConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors import motion
from pixloc_ros.priors.gates import seconds
from pixloc_ros.priors.odometry import OdometryBuffer, OdometryReading
from pixloc_ros.types import PosePrior


@dataclass(frozen=True, slots=True)
class StampedPose:
    """A pose from any source, and the odometry reading at its stamp (None: not yet known)."""

    T_map_base: Matrix
    covariance: Matrix  # (6, 6) map axes
    stamp_ns: int
    source: str
    reading: OdometryReading | None = None

    def within(self, stamp_ns: int, limit_s: float) -> bool:
        """Return whether a stamp is at most limit_s away."""
        return abs(seconds(stamp_ns - self.stamp_ns)) <= limit_s

    def read(self, odometry: OdometryBuffer) -> StampedPose:
        """Return the pose with its odometry reading if that is known, or known better, by now."""
        if self.reading is not None and not self.reading.extrapolated_s:
            return self
        return replace(self, reading=odometry.at(self.stamp_ns) or self.reading)

    def moved(self, stamp_ns: int, step: motion.Step) -> PosePrior:
        """Return a prior: the pose after one step."""
        T_map_base, covariance = motion.carry(self.T_map_base, self.covariance, step)
        return PosePrior(T_map_base, covariance, self.source, stamp_ns)


def is_vague(covariance: Matrix, config: PriorsConfig) -> bool:
    """Return whether a covariance (6, 6) is too large to tell the place, as for a poor GNSS fix."""
    return bool(covariance[:2, :2].max() > config.gnss_max_sigma_m**2)


def odometry_step(
    pose: StampedPose, odometry: OdometryBuffer, stamp_ns: int, config: PriorsConfig
) -> motion.Step | None:
    """Return the motion since the pose by odometry; None if it broke or does not reach so far."""
    before, after = pose.reading, odometry.at(stamp_ns)
    if before is None or after is None or before.epoch != after.epoch:
        return None
    T_before_after = se3.inverse(before.T_odom_base) @ after.T_odom_base
    assumed_s = before.extrapolated_s + after.extrapolated_s
    return motion.odometry_step(T_before_after, after.driven_m - before.driven_m, config, assumed_s)


def standing_step(pose: StampedPose, stamp_ns: int, config: PriorsConfig) -> motion.Step:
    """Return a step without motion, for a vehicle that is not known to move."""
    return motion.blind_step(np.eye(4), seconds(stamp_ns - pose.stamp_ns), config)


def carried(
    pose: StampedPose, stamp_ns: int, odometry: OdometryBuffer, config: PriorsConfig
) -> PosePrior:
    """Return a prior at another stamp: moved by odometry, or unmoved without it."""
    step = odometry_step(pose, odometry, stamp_ns, config)
    return pose.moved(stamp_ns, step or standing_step(pose, stamp_ns, config))


def velocity_step(
    first: StampedPose | None, second: StampedPose, stamp_ns: int, config: PriorsConfig
) -> motion.Step:
    """Return the motion from the second pose on, at the velocity between the two."""
    elapsed_ns = stamp_ns - second.stamp_ns
    between_ns = second.stamp_ns - first.stamp_ns if first else 0
    if first is None or not 0 < seconds(between_ns) <= config.odometry_max_gap_s:
        return standing_step(second, stamp_ns, config)
    T_before_after = motion.extrapolate(
        first.T_map_base, second.T_map_base, elapsed_ns / between_ns
    )
    return motion.blind_step(T_before_after, seconds(elapsed_ns), config)
