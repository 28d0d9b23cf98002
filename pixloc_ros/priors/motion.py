"""Propagate a pose and its covariance along the vehicle's motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixloc_ros.config import PriorsConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix


@dataclass(frozen=True, slots=True)
class Step:
    """A relative motion in the vehicle's own frame, and the sigmas that it adds."""

    T_before_after: Matrix
    sigma_m: float
    sigma_rad: float


def odometry_step(
    T_before_after: Matrix, driven_m: float, config: PriorsConfig, assumed_s: float = 0.0
) -> Step:
    """Return a motion measured by odometry; its uncertainty grows with the distance driven.

    assumed_s: how long the motion was not measured but assumed to continue.
    """
    driven_m = abs(driven_m)
    heading_rad = np.deg2rad(config.odometry_heading_sigma_deg_per_m) * driven_m
    sideways_m = heading_rad * driven_m / np.sqrt(3.0)  # random heading drift, integrated
    along_m = config.odometry_position_sigma_share * driven_m
    blind = blind_step(T_before_after, assumed_s, config)
    sigma_m = float(np.linalg.norm([along_m, sideways_m, blind.sigma_m]))
    return Step(T_before_after, sigma_m, float(np.hypot(heading_rad, blind.sigma_rad)))


def blind_step(T_before_after: Matrix, elapsed_s: float, config: PriorsConfig) -> Step:
    """Return a motion that is only assumed; its uncertainty grows with time."""
    sigma_m = config.odometry_min_sigma_m + config.motion_sigma_mps * abs(elapsed_s)
    sigma_deg = config.odometry_min_sigma_deg + config.motion_sigma_degps * abs(elapsed_s)
    return Step(T_before_after, sigma_m, float(np.deg2rad(sigma_deg)))


def carry(T_map_base: Matrix, covariance: Matrix, step: Step) -> tuple[Matrix, Matrix]:
    """Move a pose (4, 4) and its covariance (6, 6), in map axes, by one step.

    An error of the attitude swings the displacement: dp' = dp + dtheta x d. Hence cov' = J cov J^T
    + Q with J = [I, -[d]x; 0, I], where d is the displacement in map axes.
    """
    T_map_after = T_map_base @ step.T_before_after
    J = np.eye(6)
    J[:3, 3:] = -skew(T_map_after[:3, 3] - T_map_base[:3, 3])
    noise = np.diag(np.repeat([step.sigma_m**2, step.sigma_rad**2], 3))
    return T_map_after, J @ covariance @ J.T + noise


def extrapolate(T_first: Matrix, T_second: Matrix, fraction: float) -> Matrix:
    """Return the motion after T_second if that from T_first goes on for `fraction` of it."""
    return se3.interpolate(np.eye(4), se3.inverse(T_first) @ T_second, fraction)
