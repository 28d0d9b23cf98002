"""Convert pose covariances between frames: the only place that does.

The aligner perturbs the camera: `T_cam_map <- exp(twist) T_cam_map`, with the twist in the camera
frame. ROS (REP-103, PoseWithCovariance) perturbs the vehicle: the position of base_link in map
axes, and a rotation about fixed map axes. Both put translation first, then rotation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

TOLERANCE = 1e-3  # of correlations, because filters round


def sigmas_and_correlations(covariance: Matrix) -> tuple[NDArray[np.float64], Matrix]:
    """Return sigmas (N,) and correlations (N, N), symmetric, of a covariance (N, N).

    A zero variance means unknown rather than exact: that axis has no correlation with the others.

    Raises DataError for a matrix that is not a covariance.
    """
    variances = np.diag(covariance)
    if not np.isfinite(covariance).all() or (variances < 0).any():
        raise DataError(f"variances are {variances}")
    sigmas = np.sqrt(variances)
    scales = np.where(sigmas > 0, sigmas, 1.0)
    with np.errstate(over="ignore", under="ignore"):
        correlation = covariance / scales / scales[:, None]
    if not np.abs(correlation).max(initial=0.0) <= 1 + TOLERANCE:
        raise DataError("covariances are larger than the variances allow")
    if np.abs(correlation - correlation.T).max() > TOLERANCE:
        raise DataError("the covariance is not symmetric")
    correlation = (correlation + correlation.T) / 2
    if np.linalg.eigvalsh(correlation)[0] < -TOLERANCE:
        raise DataError("the covariance is not positive semi-definite")
    return sigmas, correlation


def skew(v: NDArray[np.float64]) -> Matrix:
    """Return cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    rows = [np.stack(row, -1) for row in ((o, -z, y), (z, o, -x), (-y, x, o))]
    return np.stack(rows, -2)


def cam_twist_from_base(T_map_base: Matrix, T_base_cam: Matrix) -> Matrix:
    """Return the first-order map (6, 6) from a base perturbation in ROS order to a camera twist.

    With c and b the positions of camera and base, a perturbation (dt, dw) moves the camera by dt +
    dw x (c - b); in the camera frame the map moves the opposite way.
    """
    T_map_cam = T_map_base @ T_base_cam
    R_cam_map = T_map_cam[:3, :3].T
    lever = T_map_cam[:3, 3] - T_map_base[:3, 3]
    A = np.zeros((6, 6))
    A[:3, :3] = -R_cam_map
    A[:3, 3:] = R_cam_map @ skew(lever)
    A[3:, 3:] = -R_cam_map
    return A


def base_covariance_from_cam(
    covariance_cam: Matrix, T_map_base: Matrix, T_base_cam: Matrix
) -> Matrix:
    """Convert a camera twist's covariance to the base's in ROS order, both (6, 6)."""
    A = np.linalg.inv(cam_twist_from_base(T_map_base, T_base_cam))
    return A @ covariance_cam @ A.T


def cam_covariance_from_base(covariance: Matrix, T_map_base: Matrix, T_base_cam: Matrix) -> Matrix:
    """Convert the base's covariance in ROS order to the camera twist's, both (6, 6)."""
    A = cam_twist_from_base(T_map_base, T_base_cam)
    return A @ covariance @ A.T


def turned(covariance: Matrix, R_a_b: Matrix) -> Matrix:
    """Rotate a covariance (6, 6) or (3, 3) from the axes of frame b to those of frame a.

    A zero variance means unknown rather than exact (RViz, planar GNSS), and remains zero.
    """
    J = np.kron(np.eye(2), R_a_b)
    result = J @ covariance @ J.T
    unknown = np.diag(covariance) == 0
    result[unknown, :] = result[:, unknown] = 0.0
    return result


def floor_along_base(sigmas: Matrix, T_map_base: Matrix) -> Matrix:
    """Return the covariance (6, 6), ROS order, of sigmas (6,) along and about the vehicle axes."""
    J = np.kron(np.eye(2), T_map_base[:3, :3])
    result: Matrix = J @ np.diag(sigmas**2) @ J.T
    return result


def base_error(T_map_base: Matrix, T_map_base_true: Matrix) -> Matrix:
    """Return the error (6,) of an estimate in ROS order, which its covariance describes."""
    rotation = T_map_base[:3, :3] @ T_map_base_true[:3, :3].T
    translation = T_map_base[:3, 3] - T_map_base_true[:3, 3]
    return np.concatenate([translation, Rotation.from_matrix(rotation).as_rotvec()])


def perturb_base(T_map_base: Matrix, error: Matrix) -> Matrix:
    """Return the pose whose base_error relative to T_map_base is `error` (6,)."""
    rotation = Rotation.from_rotvec(error[3:]).as_matrix() @ T_map_base[:3, :3]
    return se3.make(rotation, T_map_base[:3, 3] + error[:3])


def mahalanobis2(error: Matrix, covariance: Matrix) -> float:
    """Return the squared Mahalanobis distance of an error (6,)."""
    return float(error @ np.linalg.solve(covariance, error))


def diagonal(sigma_m: float, sigma_deg: float) -> Matrix:
    """Return an isotropic covariance (6, 6) from translation and rotation sigmas per axis."""
    return np.diag([sigma_m**2] * 3 + [np.deg2rad(sigma_deg) ** 2] * 3)
