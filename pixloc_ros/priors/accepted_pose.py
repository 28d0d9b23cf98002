"""The pose that was accepted last, and where it puts the vehicle later."""

from __future__ import annotations

from dataclasses import replace

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.place_comparison import PlaceComparison
from pixloc_ros.priors.stamped_pose import StampedPose, odometry_step, velocity_step
from pixloc_ros.types import Matrix, PosePrior


class AcceptedPose:
    """The last accepted pose, and the one before it, for the velocity. There may be none."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._before: StampedPose | None = None
        self._last: StampedPose | None = None
        self.comparison = PlaceComparison(config)

    @property
    def stamp_ns(self) -> int | None:
        """Of the last one."""
        return self._last.stamp_ns if self._last else None

    def clear(self) -> None:
        self._before = self._last = None
        self.comparison.clear()

    def take(self, found: StampedPose) -> None:
        """Believe this one from now on."""
        self._before, self._last = self._last, found

    def read(self, odometry: OdometryBuffer) -> None:
        """Take odometry that comes after the pose."""
        self._last = self._last and self._last.read(odometry)

    def T_map_odom(self, odometry: OdometryBuffer) -> Matrix | None:
        """map<-odom (4, 4) as of the last one; None before it and when the odometry broke."""
        last = self._last
        if last is None or last.reading is None or last.reading.epoch != odometry.epoch:
            return None
        return last.T_map_base @ se3.inverse(last.reading.T_odom_base)

    def carried(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """By odometry or, without it, going on as before; None beyond `max_coast_s`."""
        last, config = self._last, self._config.current.priors
        if last is None or not last.within(stamp_ns, config.max_coast_s):
            return None
        step = odometry_step(last, odometry, stamp_ns, config)
        if step is not None:
            return self.comparison.tell(last.moved(stamp_ns, step))
        step = velocity_step(self._before, last, stamp_ns, config)
        return self.comparison.tell(replace(last, source="motion").moved(stamp_ns, step))

    def expected(self, stamp_ns: int, odometry: OdometryBuffer) -> PosePrior | None:
        """As carried, but by odometry however long ago it was."""
        last = self._last
        step = last and odometry_step(last, odometry, stamp_ns, self._config.current.priors)
        return last.moved(stamp_ns, step) if last and step else self.carried(stamp_ns, odometry)
