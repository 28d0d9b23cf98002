"""Whether a result is believed: one test after the other, the first that fails is the reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import AcceptanceConfig, CovarianceConfig
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Calibration, MapMetadata
from pixloc_ros.types import Alignment, PosePrior, Reason

Verdict = tuple[Reason, str]


def base_pose_and_covariance(
    alignment: Alignment, T_base_cam: NDArray[np.float64], calibration: Calibration
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """T_map_base (4, 4) and its calibrated covariance (6, 6) in ROS order."""
    T_map_base = alignment.T_map_cam @ se3.inverse(T_base_cam)
    covariance = cov.base_covariance_from_cam(alignment.covariance_cam, T_map_base, T_base_cam)
    sigmas = np.concatenate([calibration.floor_m, np.deg2rad(calibration.floor_deg)])
    return T_map_base, calibration.scale * covariance + cov.floor_along_base(sigmas, T_map_base)


def calibration_of(map_: MapMetadata, config: CovarianceConfig) -> Calibration:
    """The map's own calibration, or the configured one where the map has none."""
    if map_.calibration is not None and config.from_map:
        return map_.calibration
    return Calibration(
        scale=config.scale,
        floor_m=(config.floor_m,) * 3,
        floor_deg=(config.floor_deg,) * 3,
        frames=0,
    )


def judge(
    alignment: Alignment,
    T_map_base: NDArray[np.float64],
    covariance: NDArray[np.float64],
    prior: PosePrior,
    config: AcceptanceConfig,
) -> Verdict:
    """The first failed test, or Reason.OK."""
    if not (np.isfinite(alignment.cost) and np.isfinite(covariance).all()):
        return (
            Reason.NON_FINITE,
            "no initial pose kept enough points in view with a solvable system",
        )
    tests = _tests(alignment, T_map_base, covariance, prior, config)
    return next(tests, (Reason.OK, f"cost {alignment.cost:.2f}"))


def _tests(
    alignment: Alignment,
    T_map_base: NDArray[np.float64],
    covariance: NDArray[np.float64],
    prior: PosePrior,
    config: AcceptanceConfig,
) -> Iterator[Verdict]:
    if not alignment.converged:
        yield Reason.NOT_CONVERGED, f"still moving after {alignment.iterations[-1]} iterations"
    if alignment.cost > config.max_cost:
        yield Reason.HIGH_COST, f"cost {alignment.cost:.2f} above {config.max_cost:.2f}"
    if alignment.inlier_share < config.min_inlier_share:
        share, least = alignment.inlier_share, config.min_inlier_share
        yield Reason.FEW_INLIERS, f"inlier share {share:.2f} below {least:.2f}"
    if alignment.condition > config.max_condition:
        yield Reason.ILL_CONDITIONED, f"condition {alignment.condition:.1e} of the Hessian"
    distance = _sigmas_from_prior(T_map_base, covariance, prior)
    if distance > config.max_sigma_from_prior:
        yield Reason.FAR_FROM_PRIOR, f"{distance:.1f} sigma away from the {prior.source} prior"
    margin = alignment.runner_up_cost - alignment.cost
    if margin < config.ambiguity_margin:
        yield Reason.AMBIGUOUS, f"another pose is worse by only {margin:.3f} in cost"


def _sigmas_from_prior(
    T_map_base: NDArray[np.float64], covariance: NDArray[np.float64], prior: PosePrior
) -> float:
    error = cov.base_error(T_map_base, prior.T_map_base)
    return float(np.sqrt(cov.mahalanobis2(error, prior.covariance + covariance)))
