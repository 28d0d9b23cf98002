"""A transform that follows another without leaping, for controllers that steer in the map frame."""

from __future__ import annotations

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gates import seconds


class TransformSmoother:
    """map<-odom as sent, which nears map<-odom as found, exponentially in time."""

    def __init__(self) -> None:
        self._sent: tuple[int, Matrix] | None = None

    def clear(self) -> None:
        """Forget what was sent: the next transform is taken as it is."""
        self._sent = None

    def step(
        self,
        stamp_ns: int,
        T_map_odom: Matrix,
        T_odom_base: Matrix,
        time_constant_s: float,
        max_m: float,
        max_deg: float,
    ) -> Matrix:
        """Return what to send at this stamp (4, 4), for a vehicle that is at T_odom_base.

        time_constant_s: after it 63 % of a correction are done; 0: all of it at once.
        max_m, max_deg: a correction of the vehicle by more than either is made at once, because
        going on in the wrong place is worse than leaping. Both count at the vehicle: far from the
        origin of the odometry a small turn moves it a lot.
        """
        T_sent = T_map_odom
        if self._sent is not None and time_constant_s:
            elapsed_s, T_before = seconds(stamp_ns - self._sent[0]), self._sent[1]
            before, found = T_before @ T_odom_base, T_map_odom @ T_odom_base
            leap = se3.distance_m(before, found) > max_m or se3.angle_deg(before, found) > max_deg
            if elapsed_s >= 0 and not leap:
                done = -np.expm1(-elapsed_s / time_constant_s)
                T_sent = se3.interpolate(before, found, done) @ se3.inverse(T_odom_base)
        self._sent = stamp_ns, T_sent
        return T_sent
