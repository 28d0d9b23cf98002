"""A transform that follows another without leaping, for controllers that steer in the map frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.priors.gates import seconds

Matrix = NDArray[np.float64]


class TransformSmoother:
    """map<-odom as sent, which nears map<-odom as found, exponentially in time.

    time_constant_s: after it 63 % of a correction are done; 0: all of it at once.
    max_m, max_deg: a correction of the vehicle by more than either is made at once, because going
    on in the wrong place is worse than leaping. Both count at the vehicle: far from the origin of
    the odometry a small turn moves it a lot.
    """

    def __init__(self, time_constant_s: float, max_m: float, max_deg: float) -> None:
        self.adjust(time_constant_s, max_m, max_deg)
        self._sent: tuple[int, Matrix] | None = None

    def adjust(self, time_constant_s: float, max_m: float, max_deg: float) -> None:
        """Go on in another way from what was sent."""
        self._time_constant_s = time_constant_s
        self._max_m, self._max_deg = max_m, max_deg

    def clear(self) -> None:
        """Forget what was sent: the next transform is taken as it is."""
        self._sent = None

    def step(self, stamp_ns: int, T_map_odom: Matrix, T_odom_base: Matrix) -> Matrix:
        """What to send at this stamp (4, 4), for a vehicle that is at T_odom_base."""
        self._sent = stamp_ns, self._next(stamp_ns, T_map_odom, T_odom_base)
        return self._sent[1]

    def _next(self, stamp_ns: int, T_map_odom: Matrix, T_odom_base: Matrix) -> Matrix:
        if self._sent is None or not self._time_constant_s:
            return T_map_odom
        elapsed_s = seconds(stamp_ns - self._sent[0])
        T_sent, T_found = self._sent[1] @ T_odom_base, T_map_odom @ T_odom_base
        far = se3.distance_m(T_sent, T_found) > self._max_m
        if elapsed_s < 0 or far or se3.angle_deg(T_sent, T_found) > self._max_deg:
            return T_map_odom
        done = -np.expm1(-elapsed_s / self._time_constant_s)
        return se3.interpolate(T_sent, T_found, done) @ se3.inverse(T_odom_base)
