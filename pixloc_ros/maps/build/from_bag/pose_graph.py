"""A pose graph: relative poses and fixes, and the poses of the vehicle that fit them best.

Gauss-Newton on all poses, the factor of odometry's distances and the delay of the fixes of each
drive; robust weights (Cauchy) for fixes and loops. Rotations are disturbed on the right:
R <- R exp(w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix

ITERATIONS = 30
DONE = 1e-6  # metres and radians of the last step
TILT_SIGMA_DEG = 2.0  # odometry's z axis is up (REP 105), and the map's is
GAUGE_SIGMA = 1e-3  # of the first pose where nothing else determines a place
LEVEL = [0, 1]  # components of an axis that say how it is tilted


@dataclass(frozen=True, slots=True)
class Fixes:
    """Where something on the vehicle is in the map, each given at one pose: K rows."""

    moment: NDArray[np.int64]  # (K,) index of the pose
    position: Matrix  # (K, 3) in the map
    weight: Matrix  # (K, 3, 3) square root of information
    lever: Matrix  # (K, 3) antenna in the axes of the vehicle at that pose
    velocity: Matrix  # (K, 3) of the antenna, in the same axes
    drive: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Steps:
    """Relative poses: K rows."""

    first: NDArray[np.int64]  # (K,) indices of poses
    second: NDArray[np.int64]
    T: Matrix  # (K, 4, 4) first from second
    sigma_m: Matrix  # (K,)
    sigma_rad: Matrix  # (K,)
    scaled: NDArray[np.bool_]  # whether the odometry's factor applies
    drive: NDArray[np.int64]
    robust: bool = False


@dataclass(slots=True)
class PoseGraph:
    """Steps and fixes of the poses of some drives."""

    drives: int
    steps: Sequence[Steps]
    fixes: Sequence[Fixes]
    _rows: list[NDArray] = field(default_factory=list)
    _columns: list[NDArray] = field(default_factory=list)
    _values: list[NDArray] = field(default_factory=list)
    _residuals: list[NDArray] = field(default_factory=list)
    _count: int = 0

    def solve(
        self, T_start: Matrix, up_base: Matrix, config: MappingConfig
    ) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
        """Find the poses (N, 4, 4) that fit best, beginning at some.

        up_base: (N, 3) the map's up in the vehicle's axes. Returns with the poses, of each drive
        (D,), true metres per metre of odometry and the delay of the fixes in seconds. Without fixes
        the first pose is at zero and heads along x.
        """
        T = T_start.copy()
        scale, delay_s = np.ones(self.drives), np.zeros(self.drives)
        sizes = 6 * len(T) + 2 * self.drives
        for _ in range(ITERATIONS):
            self._rows, self._columns, self._values = [], [], []
            self._residuals, self._count = [], 0
            for steps in self.steps:
                self._add_steps(steps, T, scale)
            for fixes in self.fixes:
                self._add_fixes(fixes, T, delay_s)
            self._add_tilt(T, up_base)
            self._add_globals(6 * len(T), scale, delay_s, config)
            if not self.fixes:
                self._add_gauge(T)
            J = sparse.csr_matrix(
                (
                    np.concatenate(self._values),
                    (np.concatenate(self._rows), np.concatenate(self._columns)),
                ),
                shape=(self._count, sizes),
            )
            step = spsolve(
                (J.T @ J + 1e-9 * sparse.eye(sizes)).tocsc(), -J.T @ np.concatenate(self._residuals)
            )
            poses = step[: 6 * len(T)].reshape(-1, 6)
            T[:, :3, 3] += poses[:, :3]
            T[:, :3, :3] = T[:, :3, :3] @ Rotation.from_rotvec(poses[:, 3:]).as_matrix()
            scale += step[6 * len(T) : 6 * len(T) + self.drives]
            delay_s += step[6 * len(T) + self.drives :]
            if np.abs(step).max() < DONE:
                break
        return T, scale, delay_s

    def _add_steps(self, steps: Steps, T: Matrix, scale: Matrix) -> None:
        i, j = steps.first, steps.second
        R_iT, R_j = np.swapaxes(T[i, :3, :3], -1, -2), T[j, :3, :3]
        between = np.einsum("kij,kj->ki", R_iT, T[j, :3, 3] - T[i, :3, 3])
        factor = np.where(steps.scaled, scale[steps.drive], 1.0)
        error_m = between - factor[:, None] * steps.T[:, :3, 3]
        relative = R_iT @ R_j
        error_rad = Rotation.from_matrix(
            np.swapaxes(steps.T[:, :3, :3], -1, -2) @ relative
        ).as_rotvec()
        whitened = np.concatenate(
            [error_m / steps.sigma_m[:, None], error_rad / steps.sigma_rad[:, None]], axis=1
        )
        robust = _cauchy(whitened) if steps.robust else np.ones(len(i))
        w_m, w_rad = robust / steps.sigma_m, robust / steps.sigma_rad
        self._block(
            error_m * w_m[:, None],
            [
                (6 * i, -R_iT * w_m[:, None, None]),
                (6 * j, R_iT * w_m[:, None, None]),
                (6 * i + 3, skew(between) * w_m[:, None, None]),
                (
                    6 * len(T) + steps.drive,
                    (-steps.T[:, :3, 3] * steps.scaled[:, None] * w_m[:, None])[..., None],
                ),
            ],
        )
        eye = np.tile(np.eye(3), (len(i), 1, 1))
        self._block(
            error_rad * w_rad[:, None],
            [
                (6 * j + 3, eye * w_rad[:, None, None]),
                (6 * i + 3, -np.swapaxes(relative, -1, -2) * w_rad[:, None, None]),
            ],
        )

    def _add_fixes(self, fixes: Fixes, T: Matrix, delay_s: Matrix) -> None:
        i = fixes.moment
        R = T[i, :3, :3]
        lever = fixes.lever - delay_s[fixes.drive][:, None] * fixes.velocity
        error = T[i, :3, 3] + np.einsum("kij,kj->ki", R, lever) - fixes.position
        whitened = np.einsum("kij,kj->ki", fixes.weight, error)
        W = fixes.weight * _cauchy(whitened)[:, None, None]
        velocity = np.einsum("kij,kj->ki", R, fixes.velocity)
        self._block(
            np.einsum("kij,kj->ki", W, error),
            [
                (6 * i, W),
                (6 * i + 3, -W @ R @ skew(lever)),
                (6 * len(T) + self.drives + fixes.drive, -W @ velocity[..., None]),
            ],
        )

    def _add_tilt(self, T: Matrix, up_base: Matrix) -> None:
        """The map's up, in the vehicle's axes, is what the odometry says."""
        R_T = np.swapaxes(T[:, :3, :3], -1, -2)
        up = R_T[:, :, 2]
        weight = 1 / np.deg2rad(TILT_SIGMA_DEG)
        self._block(
            (up - up_base)[:, LEVEL] * weight,
            [(6 * np.arange(len(T)) + 3, skew(up)[:, LEVEL] * weight)],
        )

    def _add_globals(
        self, first: int, scale: Matrix, delay_s: Matrix, config: MappingConfig
    ) -> None:
        scale_sigma = max(config.odometry_scale_sigma, 1e-9) if self.fixes else 1e-9
        delay_sigma_s = max(config.fix_delay_sigma_s, 1e-9)
        index = np.arange(self.drives)
        for values, sigma, offset in (
            (scale - 1.0, scale_sigma, first),
            (delay_s, delay_sigma_s, first + self.drives),
        ):
            self._block(
                values[:, None] / sigma, [(offset + index, np.full((self.drives, 1, 1), 1 / sigma))]
            )

    def _add_gauge(self, T: Matrix) -> None:
        """The first pose is at zero, and heads along x."""
        R = T[0, :3, :3]
        yaw = np.arctan2(R[1, 0], R[0, 0])
        row = np.array([[R[2, 0], R[2, 1], R[2, 2]]])  # the map's z in the vehicle's axes
        self._block(T[:1, :3, 3] / GAUGE_SIGMA, [(np.array([0]), np.eye(3)[None] / GAUGE_SIGMA)])
        self._block(np.array([[yaw / GAUGE_SIGMA]]), [(np.array([3]), row[None] / GAUGE_SIGMA)])

    def _block(self, residual: Matrix, parts: Sequence[tuple[NDArray, Matrix]]) -> None:
        """Residuals (K, R), with Jacobians (K, R, C) at columns that begin at (K,)."""
        count, height = residual.shape
        rows = self._count + np.arange(count * height).reshape(count, height)
        for begin, J in parts:
            width = J.shape[-1]
            self._rows.append(np.repeat(rows[..., None], width, -1).ravel())
            columns = np.asarray(begin)[:, None, None] + np.arange(width)
            self._columns.append(np.broadcast_to(columns, J.shape).ravel())
            self._values.append(np.ascontiguousarray(J).ravel())
        self._residuals.append(residual.ravel())
        self._count += count * height


def _cauchy(whitened: Matrix) -> Matrix:
    """(K,) factors of residuals, one where they are small."""
    return np.asarray(1 / np.sqrt(1 + (whitened**2).mean(-1) / 4))
