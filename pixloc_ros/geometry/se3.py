"""Rigid transforms as float64 (..., 4, 4) numpy matrices, for everything outside the aligner.

`T_target_source` maps points of source into target: `p_target = T_target_source @ p_source`. Twists
are translation first, then rotation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]  # of any shape; the package's one name for it

# Axes of an optical frame (x right, y down, z forward) in base_link's axes (x forward, y left,
# z up), REP-103. The same rotation turns a map whose world is an optical frame into REP-103 axes.
R_BASE_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def make(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """Build (4, 4) from a (3, 3) rotation matrix and a translation (3,) in metres."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def base_from_optical() -> Matrix:
    """Return T_base_cam of a camera at base_link that looks forward."""
    return make(R_BASE_OPTICAL, np.zeros(3))


def inverse(T_a_b: ArrayLike) -> Matrix:
    """Return T_b_a of a rigid transform T_a_b (..., 4, 4)."""
    T = np.asarray(T_a_b, dtype=np.float64)
    R_b_a = np.swapaxes(T[..., :3, :3], -1, -2)
    out = np.zeros_like(T)
    out[..., :3, :3] = R_b_a
    out[..., :3, 3] = -(R_b_a @ T[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def transform(T_a_b: Matrix, points_b: ArrayLike) -> Matrix:
    """Convert points (..., N, 3) from frame b to frame a."""
    return np.asarray(points_b) @ np.swapaxes(T_a_b[..., :3, :3], -1, -2) + T_a_b[..., None, :3, 3]


def from_quat_xyzw(quat_xyzw: ArrayLike, translation: ArrayLike) -> Matrix:
    """Build (4, 4) from a ROS quaternion (normalised here) and a translation in metres."""
    return make(Rotation.from_quat(np.asarray(quat_xyzw, float)).as_matrix(), translation)


def from_qvec_wxyz(qvec_wxyz: ArrayLike, translation: ArrayLike) -> Matrix:
    """Build (4, 4) from a COLMAP quaternion (normalised here) and a translation."""
    return from_quat_xyzw(np.roll(np.asarray(qvec_wxyz, float), -1), translation)


def quat_xyzw(T: Matrix) -> Matrix:
    """Return the rotation as a ROS quaternion with non-negative w."""
    return Rotation.from_matrix(T[..., :3, :3]).as_quat(canonical=True)


def qvec_wxyz(T: Matrix) -> Matrix:
    """Return the rotation as a COLMAP quaternion with non-negative w."""
    return np.roll(quat_xyzw(T), 1, axis=-1)


def interpolate(T_0: Matrix, T_1: Matrix, fraction: float) -> Matrix:
    """Interpolate between two poses (linear, SLERP); fractions outside 0..1 extrapolate."""
    relative = Rotation.from_matrix(T_0[:3, :3].T @ T_1[:3, :3]).as_rotvec()
    rotation = T_0[:3, :3] @ Rotation.from_rotvec(fraction * relative).as_matrix()
    return make(rotation, (1.0 - fraction) * T_0[:3, 3] + fraction * T_1[:3, 3])


def distance_m(T_0: Matrix, T_1: Matrix) -> float:
    """Return the distance between the two origins in metres."""
    return float(np.linalg.norm(T_0[:3, 3] - T_1[:3, 3]))


def angle_deg(T_0: Matrix, T_1: Matrix) -> float:
    """Return the angle of the relative rotation in degrees."""
    relative = Rotation.from_matrix(T_0[:3, :3].T @ T_1[:3, :3])
    return float(np.rad2deg(relative.magnitude()))


def angles_rad(T_0: Matrix, T_1: Matrix) -> Matrix:
    """Angles (...) of the relative rotations of poses or rotations (..., 4, 4) or (..., 3, 3).

    By their traces, which is fast; angles near zero and pi are off by up to 1e-7.
    """
    trace = np.einsum("...ij,...ij->...", T_0[..., :3, :3], T_1[..., :3, :3])
    angles: Matrix = np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))
    return angles


def apart(T_0: Matrix, T_1: Matrix, least_m: float, least_deg: float) -> bool:
    """Return whether two poses (4, 4) differ by at least this distance or this angle."""
    return distance_m(T_0, T_1) >= least_m or angle_deg(T_0, T_1) >= least_deg


def turn_rad(a: Matrix, b: Matrix) -> float:
    """Return the angle about z that rotates vectors a (N, 2 or 3) onto b, by least squares.

    The length of a vector acts as its weight.
    """
    cross = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    return float(np.arctan2(cross, (a[:, :2] * b[:, :2]).sum()))


def is_rigid(T: ArrayLike, tolerance: float = 1e-3) -> bool:
    """Return whether a (4, 4) matrix is finite with a proper rotation."""
    T = np.asarray(T, dtype=np.float64)
    return T.shape == (4, 4) and bool(are_rigid(T, tolerance))


def are_rigid(T: Matrix, tolerance: float = 1e-3) -> NDArray[np.bool_]:
    """Return, for matrices (..., 4, 4), whether each is finite with a proper rotation."""
    finite = np.asarray(np.isfinite(T).all((-2, -1)))
    R = np.where(finite[..., None, None], T[..., :3, :3], 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        skew = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max((-2, -1))
        return np.asarray(finite & (skew < tolerance) & (np.linalg.det(R) > 0))
