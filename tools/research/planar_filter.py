"""A small planar extended Kalman filter, in place of robot_localization next to the node."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.se3 import Matrix

Array = NDArray[np.float64]
PLANAR = np.array([0, 1, 5])  # x, y and yaw of a pose covariance


def planar(T_map_base: Matrix) -> Array:
    """Return x, y and yaw of a pose (4, 4)."""
    return np.array([*T_map_base[:2, 3], np.arctan2(T_map_base[1, 0], T_map_base[0, 0])])


def wrapped(angle_rad: float) -> float:
    return float((angle_rad + np.pi) % (2 * np.pi) - np.pi)


class PlanarFilter:
    """State x, y, yaw in the map; odometry predicts it, poses and positions correct it."""

    def __init__(self, state: Array, covariance: Array) -> None:
        self.state, self.covariance = state.copy(), covariance.copy()

    def drive(self, step: Array, noise: Array) -> None:
        """Predict with a step (dx, dy, dyaw) in the vehicle's axes, with its covariance (3, 3)."""
        c, s = np.cos(self.state[2]), np.sin(self.state[2])
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        jacobian = np.eye(3)
        jacobian[:2, 2] = [-s * step[0] - c * step[1], c * step[0] - s * step[1]]
        self.state = self.state + turn @ step
        self.covariance = jacobian @ self.covariance @ jacobian.T + turn @ noise @ turn.T

    def correct(self, measured: Array, covariance: Array, threshold_sigma: float = np.inf) -> bool:
        """Use a pose (3,) or a position (2,); return False if it is beyond the threshold."""
        size = len(measured)
        innovation = measured - self.state[:size]
        if size == 3:
            innovation[2] = wrapped(innovation[2])
        S = self.covariance[:size, :size] + covariance
        if innovation @ np.linalg.solve(S, innovation) > threshold_sigma**2:
            return False
        gain = np.linalg.solve(S, self.covariance[:size]).T
        self.state = self.state + gain @ innovation
        self.covariance = self.covariance - gain @ S @ gain.T
        return True
