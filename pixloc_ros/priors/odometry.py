"""Odometry at any stamp: a short history that interpolates and refuses impossible readings."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gates import JumpGate, seconds


@dataclass(frozen=True, slots=True)
class OdometryReading:
    """Pose of the vehicle by odometry. Only readings of one epoch share an odom frame."""

    stamp_ns: int
    T_odom_base: Matrix
    driven_m: float  # path length since the epoch began
    epoch: int
    extrapolated_s: float = 0.0  # how long the motion was assumed to continue


@dataclass(frozen=True, slots=True)
class Twist:
    """Velocity of the vehicle in its own axes: (6,) m/s and rad/s, with sigmas."""

    velocity: Matrix
    sigma: Matrix


class OdometryBuffer:
    """The recent history of one odometry stream.

    A gap or a confirmed jump starts a new epoch: poses before and after it cannot be related.
    `rejected` counts refused messages and breaks by reason.
    """

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._jumps = JumpGate()
        self._readings: list[OdometryReading] = []
        self._epoch = 0
        self.rejected: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._readings)

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest reading; None without one."""
        return self._readings[-1].stamp_ns if self._readings else None

    @property
    def epoch(self) -> int:
        """Number of the current epoch; poses of different epochs cannot be related."""
        return self._epoch

    def clear(self) -> None:
        """Forget everything; later readings belong to a new epoch."""
        self._readings.clear()
        self._jumps.clear()
        self._epoch += 1

    def add(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        """Add one message, or refuse it and count the reason."""
        if not se3.is_rigid(T_odom_base):
            self.rejected["odometry_not_finite"] += 1
            return
        if self._readings:
            elapsed_s = seconds(stamp_ns - self._readings[-1].stamp_ns)
            if elapsed_s <= 0:
                self.rejected["odometry_out_of_order"] += 1
                return
            if elapsed_s > self._config.current.priors.odometry_max_gap_s:
                self._break("odometry_gap")
        self._add_in_order(stamp_ns, T_odom_base)

    def at(self, stamp_ns: int) -> OdometryReading | None:
        """Interpolate a reading, or extrapolate slightly; None outside the history."""
        if not self._readings or stamp_ns < self._readings[0].stamp_ns:
            return None
        index = bisect_left(self._readings, stamp_ns, key=lambda reading: reading.stamp_ns)
        if index == len(self._readings):
            return self._extrapolate(stamp_ns)
        after = self._readings[index]
        if after.stamp_ns == stamp_ns:
            return after
        return _between(self._readings[index - 1], after, stamp_ns)

    def since(self, stamp_ns: int) -> list[OdometryReading]:
        """Return the readings in the history from a stamp on, oldest first."""
        index = bisect_left(self._readings, stamp_ns, key=lambda reading: reading.stamp_ns)
        return self._readings[index:]

    def motion(self, from_ns: int, to_ns: int) -> Matrix | None:
        """Return T_base_base (4, 4) from the vehicle at to_ns to it at from_ns; None if unknown."""
        then, now = self.at(from_ns), self.at(to_ns)
        if then is None or now is None or then.epoch != now.epoch:
            return None
        return se3.inverse(then.T_odom_base) @ now.T_odom_base

    def twist(self) -> Twist | None:
        """Return the velocity over the newest readings; None without two of them."""
        if len(self._readings) < 2:
            return None
        newest, config = self._readings[-1], self._config.current.priors
        before = self._readings[self._base_line()]
        elapsed_s = seconds(newest.stamp_ns - before.stamp_ns)
        T_before_newest = se3.inverse(before.T_odom_base) @ newest.T_odom_base
        rotation = Rotation.from_matrix(T_before_newest[:3, :3]).as_rotvec()
        sigma = [config.odometry_min_sigma_m, np.deg2rad(config.odometry_min_sigma_deg)]
        return Twist(
            np.concatenate([T_before_newest[:3, 3], rotation]) / elapsed_s,
            np.repeat(sigma, 3) / elapsed_s,
        )

    def _add_in_order(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        max_speed_mps = self._config.current.priors.odometry_max_speed_mps
        verdict = self._jumps.check(stamp_ns, T_odom_base[:3, 3], max_speed_mps)
        if verdict == "jump":
            self.rejected["odometry_jump"] += 1
            return
        if verdict == "moved":
            self._break("odometry_restarted")
            self._jumps.check(stamp_ns, T_odom_base[:3, 3], max_speed_mps)
        driven_m = 0.0
        if self._readings:
            newest = self._readings[-1]
            driven_m = newest.driven_m + se3.distance_m(newest.T_odom_base, T_odom_base)
        self._readings.append(OdometryReading(stamp_ns, T_odom_base, driven_m, self._epoch))
        self._forget_old()

    def _break(self, reason: str) -> None:
        self.rejected[reason] += 1
        self.clear()

    def _forget_old(self) -> None:
        config = self._config.current.priors
        keep_s = config.max_coast_s + config.gnss_max_age_s + config.odometry_max_gap_s
        oldest_ns = self._readings[-1].stamp_ns - round(keep_s * 1e9)
        expired = bisect_left(self._readings, oldest_ns, key=lambda reading: reading.stamp_ns)
        del self._readings[:expired]

    def _extrapolate(self, stamp_ns: int) -> OdometryReading | None:
        newest = self._readings[-1]
        limit_s = self._config.current.priors.odometry_max_extrapolation_s
        beyond_s = seconds(stamp_ns - newest.stamp_ns)
        if beyond_s > limit_s or len(self._readings) < 2:
            return None
        reading = _between(self._readings[self._base_line()], newest, stamp_ns)
        return replace(reading, extrapolated_s=beyond_s)

    def _base_line(self) -> int:
        """Return the index of a reading old enough that noise of single readings matters little."""
        reach_s = self._config.current.priors.odometry_max_extrapolation_s
        reach_ns = round(reach_s * 1e9)
        base_ns = self._readings[-1].stamp_ns - reach_ns
        index = bisect_left(self._readings, base_ns, key=lambda reading: reading.stamp_ns)
        return min(index, len(self._readings) - 2)


def _between(before: OdometryReading, after: OdometryReading, stamp_ns: int) -> OdometryReading:
    fraction = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    T_odom_base = se3.interpolate(before.T_odom_base, after.T_odom_base, fraction)
    driven_m = before.driven_m + fraction * (after.driven_m - before.driven_m)
    return OdometryReading(stamp_ns, T_odom_base, driven_m, after.epoch)
