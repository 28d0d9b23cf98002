"""How accurate poses on one map are, measured where the truth is known (docs/covariance.md).

An alignment cannot see the errors of its map. They are a floor under its covariance: one variance
per axis of the vehicle, chosen so that errors are within 1, 2 and 3 sigma as often as a Gaussian's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]

SIGMAS = np.arange(1, 4)
GAUSSIAN = 2 * norm.cdf(SIGMAS) - 1  # share within 1, 2, 3 sigma
_CANDIDATES = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 800)])  # metres or radians


@dataclass(frozen=True, slots=True)
class Calibration:
    """Floors per axis of the vehicle: forward, left, up in metres, then about them in radians."""

    floors: Array  # (6,)
    coverage: Array  # (3, 6) share of errors within 1, 2, 3 sigma with these floors
    frames: int


def fit(errors: Array, variances: Array) -> Calibration:
    """The floors under which errors (N, 6) fit variances (N, 6) of the alignment best.

    Best is the smallest largest departure of the shares within 1, 2 and 3 sigma from a Gaussian's:
    the tails count as much as the core.
    """
    floors = np.array([_floor(e, v) for e, v in zip(errors.T, variances.T, strict=True)])
    return Calibration(floors, coverage(errors, variances + floors**2), len(errors))


def coverage(errors: Array, variances: Array) -> Array:
    """Share (3, ...) of errors (N, ...) within 1, 2 and 3 sigma."""
    ratios = np.abs(errors) / np.sqrt(variances)
    return np.stack([(ratios < k).mean(0) for k in SIGMAS])


def departure(shares: Array) -> float:
    """The largest difference of shares (3, ...) from those of a Gaussian."""
    return float(np.abs(np.moveaxis(shares, 0, -1) - GAUSSIAN).max())


def halves(errors: Array, variances: Array, block: int = 20) -> Array:
    """Shares (3, 6) of the frames of one half with the floors of the other, both ways together.

    What to expect of frames that were not calibrated with. Halves are of blocks in turn, as errors
    of neighbouring frames are alike.
    """
    even = (np.arange(len(errors)) // block) % 2 == 0
    scaled = np.empty_like(errors)
    for half in (even, ~even):
        floors = fit(errors[~half], variances[~half]).floors
        scaled[half] = errors[half] / np.sqrt(variances[half] + floors**2)
    return coverage(scaled, np.ones_like(scaled))


def _floor(errors: Array, variances: Array) -> float:
    shares = coverage(errors[:, None], variances[:, None] + _CANDIDATES**2)
    return float(_CANDIDATES[np.abs(shares - GAUSSIAN[:, None]).max(0).argmin()])
