"""Follow a transform without jumps, for controllers that steer in the map frame."""

from __future__ import annotations

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gates import seconds


class TransformSmoother:
    """Makes the published map<-odom approach the estimated one, exponentially in time."""

    def __init__(self) -> None:
        self._sent: tuple[int, Matrix] | None = None

    def clear(self) -> None:
        """Forget what was published: the next transform is adopted as it is."""
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
        """Return the transform to publish at this stamp (4, 4), for a vehicle at T_odom_base.

        time_constant_s: the time in which 63 % of a correction is made; 0: all of it at once.
        max_m, max_deg: a larger correction is made at once, because continuing in the wrong place
        is worse than a jump. Both apply at the vehicle: far from the odometry's origin a small
        rotation moves it a lot.
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
