"""A pose stated from outside: by a person (initialpose), or by a receiver that measures poses."""

from __future__ import annotations

import numpy as np

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.stamped_pose import StampedPose, carried, is_vague, odometry_step
from pixloc_ros.types import Matrix, PosePrior


class ExternalPose:
    """The newest usable external pose, if any."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._stated: StampedPose | None = None

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest pose; None without one."""
        return self._stated.stamp_ns if self._stated else None

    def clear(self) -> None:
        """Forget the pose."""
        self._stated = None

    def fault(self, T_map_base: Matrix, covariance: Matrix) -> str:
        """Return why a pose cannot be used; empty if it can."""
        if not se3.is_rigid(T_map_base) or not _is_covariance(covariance):
            return "not_finite"
        return "too_vague" if is_vague(covariance, self._config.current.priors) else ""

    def take(self, stated: StampedPose) -> None:
        """Make this pose the newest one."""
        self._stated = stated

    def read(self, odometry: OdometryBuffer) -> None:
        """Use odometry that came after the pose."""
        self._stated = self._stated and self._stated.read(odometry)

    def carried(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """Carry the pose on by odometry or else unmoved; None beyond `max_coast_s`."""
        stated, config = self._stated, self._config.current.priors
        if stated is None or not stated.within(stamp_ns, config.max_coast_s):
            return None
        return carried(stated, stamp_ns, odometry, config)

    def by_odometry(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """Carry the pose on by odometry, however old it is; None after a break in the odometry."""
        stated = self._stated
        step = stated and odometry_step(stated, odometry, stamp_ns, self._config.current.priors)
        return stated.moved(stamp_ns, step) if stated and step else None


def _is_covariance(covariance: Matrix) -> bool:
    """Return whether a matrix is finite with no negative variance."""
    finite = covariance.shape == (6, 6) and np.isfinite(covariance).all()
    return bool(finite and (np.diag(covariance) >= 0).all())
