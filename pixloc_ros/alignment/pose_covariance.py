"""How large the error of a right pose is: its calibrated covariance and its protection level.

docs/lab/covariance.md has the formula, and what was measured.
"""

from __future__ import annotations

import numpy as np

from pixloc_ros.alignment.wrong_probability import VerificationModel
from pixloc_ros.config import CovarianceConfig
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Calibration, MapMetadata
from pixloc_ros.types import Alignment, Matrix, ProtectionLevel

TYPICAL_SHARPNESS = 0.46  # of clear images: there the covariance is as alignment and scale have it
LEAST_SHARPNESS = 0.05


def base_pose_and_covariance(
    alignment: Alignment,
    T_base_cam: Matrix,
    calibration: Calibration,
    sharpness: float = TYPICAL_SHARPNESS,
) -> tuple[Matrix, Matrix]:
    """Return T_map_base (4, 4) and its calibrated covariance (6, 6) in ROS order.

    sharpness: that of the evidence, which tells blurred images.
    """
    T_map_base = alignment.T_map_cam @ se3.inverse(T_base_cam)
    covariance = cov.base_covariance_from_cam(alignment.covariance_cam, T_map_base, T_base_cam)
    covariance *= calibration.scale * covariance_factor(sharpness)
    covariance += map_covariance(alignment, T_map_base, T_base_cam)
    sigmas = np.concatenate([calibration.floor_m, np.deg2rad(calibration.floor_deg)])
    return T_map_base, covariance + cov.floor_along_base(sigmas, T_map_base)


def map_covariance(alignment: Alignment, T_map_base: Matrix, T_base_cam: Matrix) -> Matrix:
    """Return the covariance (6, 6), ROS order, that uncertain depths of the map's points cause."""
    own = alignment.map_covariance_cam
    if own is None:
        return np.zeros((6, 6))
    return cov.base_covariance_from_cam(own, T_map_base, T_base_cam)


def covariance_factor(sharpness: float) -> float:
    """Return how much larger the variance is than alignment has it, by the image's sharpness.

    In blurred images neighbouring points err together, farther than the covariance of the
    alignment assumes. The exponent is fitted: docs/lab/covariance.md.
    """
    return float((TYPICAL_SHARPNESS / np.clip(sharpness, LEAST_SHARPNESS, 1.0)) ** 1.5)


def calibration_of(map_: MapMetadata, config: CovarianceConfig) -> Calibration:
    """Return the map's own calibration, or the configured one if the map has none."""
    if map_.calibration is not None and config.from_map:
        return map_.calibration
    return Calibration(
        scale=config.scale,
        floor_m=(config.floor_m,) * 3,
        floor_deg=(config.floor_deg,) * 3,
        frames=0,
    )


def protection_level(covariance: Matrix, model: VerificationModel) -> ProtectionLevel:
    """Return the largest sigma of the position in any direction, times a fitted factor.

    covariance: (6, 6) in ROS order.
    """
    largest_m = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]))
    return ProtectionLevel(model.protection_factor * largest_m, model.protection_risk)
