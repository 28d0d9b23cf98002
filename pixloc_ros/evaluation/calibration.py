"""Measure how accurate poses on a map are where the truth is known (docs/lab/covariance.md).

An alignment cannot see the errors of its map. They put a floor under its covariance: one variance
per axis of the vehicle, chosen so that errors are within 1, 2 and 3 sigma as often as a Gaussian's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from pixloc_ros.alignment.pose_covariance import covariance_factor, map_covariance
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.shots import Localizes, Offset
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.schema import Calibration
from pixloc_ros.types import Estimate, Frame

SIGMAS = np.arange(1, 4)
GAUSSIAN = 2 * ndtr(SIGMAS) - 1  # share of a Gaussian within 1, 2, 3 sigma
MIN_FRAMES = 40  # with fewer, the shares are too random
OFFSET = Offset(0.5, 1.0)  # of the priors, typical of tracking
_CANDIDATES = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 800)])  # floors in metres or radians


@dataclass(frozen=True, slots=True)
class CalibrationSamples:
    """Errors (N, 6) of accepted poses, and the alignment's own variances (N, 6).

    Both are along the vehicle's axes (forward, left, up) in metres, then about them in radians.
    """

    errors: Matrix
    variances: Matrix
    map_variances: Matrix | float = 0.0  # (N, 6) that uncertain depths of the points add

    def scaled(self, scale: float) -> CalibrationSamples:
        """Return the samples with their variances multiplied by a scale, those of the map added."""
        return CalibrationSamples(self.errors, scale * self.variances + self.map_variances)


def measure(
    localizer: Localizes, frames: Iterable[tuple[Frame, Matrix]], seed: int = 0
) -> CalibrationSamples:
    """Localize frames, given with their true T_map_base (4, 4), from slightly wrong priors.

    Raises DataError if too few of them are accepted.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for frame, T_map_base in frames:
        estimate = localizer.localize(frame, OFFSET.prior(T_map_base, frame.stamp_ns, rng))
        if estimate.ok:
            rows.append(_in_vehicle_axes(estimate, frame.T_base_cam, T_map_base))
    if len(rows) < MIN_FRAMES:
        raise DataError(
            f"{len(rows)} frames were localized, a calibration takes {MIN_FRAMES}: give more "
            f"images that are not the map's own"
        )
    return CalibrationSamples(*(np.array(column) for column in zip(*rows, strict=True)))


def _in_vehicle_axes(
    estimate: Estimate, T_base_cam: Matrix, T_map_base_true: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    assert estimate.T_map_base is not None and estimate.alignment is not None
    assert estimate.evidence is not None
    R_base_map = estimate.T_map_base[:3, :3].T
    error = cov.base_error(estimate.T_map_base, T_map_base_true).reshape(2, 3)
    own = cov.base_covariance_from_cam(
        estimate.alignment.covariance_cam, estimate.T_map_base, T_base_cam
    )
    own *= covariance_factor(estimate.evidence.sharpness)
    of_map = map_covariance(estimate.alignment, estimate.T_map_base, T_base_cam)
    own_variances, map_variances = (np.diag(cov.turned(each, R_base_map)) for each in (own, of_map))
    return (error @ R_base_map.T).ravel(), own_variances, map_variances


def calibration(measured: CalibrationSamples, scale: float) -> Calibration:
    """Return a map's calibration: the scale of the alignment's covariance, and the floors."""
    floors = fit(measured.scaled(scale))
    return Calibration(
        scale=scale,
        floor_m=tuple(floors[:3].round(6).tolist()),
        floor_deg=tuple(np.rad2deg(floors[3:]).round(5).tolist()),
        frames=len(measured.errors),
    )


def fit(measured: CalibrationSamples) -> Matrix:
    """Return the floors (6,), one sigma per axis, with which the errors fit the variances best.

    Best means that the largest difference between the shares within 1, 2 and 3 sigma and a
    Gaussian's is smallest, so that the tails count as much as the core.
    """
    pairs = zip(measured.errors.T, measured.variances.T, strict=True)
    return np.array([_floor(errors, variances) for errors, variances in pairs])


def coverage(errors: Matrix, variances: Matrix) -> Matrix:
    """Return the share (3, ...) of errors (N, ...) within 1, 2 and 3 sigma."""
    ratios = np.abs(errors) / np.sqrt(variances)
    return np.stack([(ratios < k).mean(0) for k in SIGMAS])


def cross_validated_coverage(measured: CalibrationSamples, block: int = 20) -> Matrix:
    """Return shares (3, 6) by cross-validation: floors of one half applied to the other, both ways.

    This predicts the coverage of frames that were not used for the calibration. The halves are made
    of alternating blocks, because errors of neighbouring frames are alike.
    """
    errors, variances = measured.errors, measured.variances
    even = (np.arange(len(errors)) // block) % 2 == 0
    floors = np.empty_like(errors)
    for half in (even, ~even):
        floors[half] = fit(CalibrationSamples(errors[~half], variances[~half]))
    return coverage(errors, variances + floors**2)


def _floor(errors: Matrix, variances: Matrix) -> float:
    shares = coverage(errors[:, None], variances[:, None] + _CANDIDATES**2)
    return float(_CANDIDATES[np.abs(shares - GAUSSIAN[:, None]).max(0).argmin()])
