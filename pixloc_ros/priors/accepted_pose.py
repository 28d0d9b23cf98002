"""The last accepted pose, and where it puts the vehicle later."""

from __future__ import annotations

from dataclasses import replace

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.place_comparison import PlaceComparison
from pixloc_ros.priors.stamped_pose import StampedPose, odometry_step, velocity_step
from pixloc_ros.types import Matrix, PosePrior


class AcceptedPose:
    """The last accepted pose, if any, and the one before it, which gives the velocity."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._before: StampedPose | None = None
        self._last: StampedPose | None = None
        self.comparison = PlaceComparison(config)

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the last accepted pose; None without one."""
        return self._last.stamp_ns if self._last else None

    def clear(self) -> None:
        """Forget both poses."""
        self._before = self._last = None
        self.comparison.clear()

    def take(self, found: StampedPose) -> None:
        """Make this pose the last accepted one."""
        self._before, self._last = self._last, found

    def read(self, odometry: OdometryBuffer) -> None:
        """Use odometry that came after the pose."""
        self._last = self._last and self._last.read(odometry)

    def T_map_odom(self, odometry: OdometryBuffer) -> Matrix | None:
        """Return map<-odom (4, 4) at the last pose.

        None without a pose, and after a break in the odometry.
        """
        last = self._last
        if last is None or last.reading is None or last.reading.epoch != odometry.epoch:
            return None
        return last.T_map_base @ se3.inverse(last.reading.T_odom_base)

    def carried(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """Carry the pose on by odometry or else at constant velocity; None beyond `max_coast_s`."""
        last, config = self._last, self._config.current.priors
        if last is None or not last.within(stamp_ns, config.max_coast_s):
            return None
        step = odometry_step(last, odometry, stamp_ns, config)
        if step is not None:
            return self.comparison.with_outcome(last.moved(stamp_ns, step))
        step = velocity_step(self._before, last, stamp_ns, config)
        return self.comparison.with_outcome(replace(last, source="motion").moved(stamp_ns, step))

    def expected(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """Carry the pose on as `carried` does, but by odometry however old the pose is."""
        last = self._last
        step = last and odometry_step(last, odometry, stamp_ns, self._config.current.priors)
        return last.moved(stamp_ns, step) if last and step else self.carried(stamp_ns, odometry)
