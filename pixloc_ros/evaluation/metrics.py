"""Compute the figures of a run: recall, errors, false accepts, latency, covariance coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from pixloc_ros.evaluation.compare import compare_trajectories
from pixloc_ros.evaluation.frames import FrameResult, PoseError, Record, Vector, with_truth
from pixloc_ros.geometry.trajectory import Trajectory


class Threshold(NamedTuple):
    """A frame counts if both errors are at most these."""

    max_m: float
    max_deg: float

    def __str__(self) -> str:
        return f"{self.max_m:g} m {self.max_deg:g} deg"


THRESHOLDS = (Threshold(0.1, 0.5), Threshold(0.25, 2.0), Threshold(0.5, 5.0))
FALSE_ACCEPT_M = 0.5  # an accepted pose with a larger error misleads the vehicle
SIGMAS = (1, 2, 3)
GAUSSIAN_SHARE = (0.683, 0.954, 0.997)  # share of a Gaussian's axis within 1, 2, 3 sigma


class Percentiles(Record):
    """Percentiles of the time per frame, in milliseconds."""

    p50: float
    p95: float
    p99: float


class Coverage(Record):
    """Share of frames whose error on a map axis is within k sigma, by k."""

    translation: dict[str, Vector]
    rotation: dict[str, Vector]


class Summary(Record):
    """The content of summary.json. None: unknown, because truth, poses or times are missing.

    Recall covers all frames with truth; a frame without a pose counts as failed. Errors cover
    localized frames.
    """

    frames_total: int
    frames_with_truth: int
    frames_localized: int
    recall: dict[str, float] | None
    median_error_m: float | None
    median_error_deg: float | None
    p95_error_m: float | None
    p95_error_deg: float | None
    max_error_m: float | None
    median_along_m: float | None  # absolute, along the true heading
    median_cross_m: float | None  # absolute, across it
    bias_along_cross_up_m: Vector | None  # mean signed error, which calibration can correct
    false_accepts: int | None
    median_prior_error_m: float | None
    median_prior_error_deg: float | None
    coverage: Coverage | None
    latency_ms: Percentiles | None
    statuses: dict[str, int]
    reasons: dict[str, int]
    map_sha256: str | None = None
    weights_sha256: str | None = None
    interrupted: str | None = None  # how far a run got that was stopped; None: it is whole
    provenance: dict[str, Any] = Field(default_factory=dict)


def evaluate(
    estimates: Sequence[FrameResult] | Trajectory,
    truth: Trajectory | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Summary:
    """Summarise frames, compared with the truth at their stamps if it is given.

    A trajectory is first converted by `compare_trajectories`.

    provenance: map_sha256, weights_sha256, interrupted, and whatever else should be recorded about
    the run.
    """
    frames = _as_frames(estimates, truth)
    known = [frame for frame in frames if frame.truth is not None]
    errors = [frame.error for frame in known if frame.error is not None]
    rest = dict(provenance or {})
    return Summary(
        frames_total=len(frames),
        frames_with_truth=len(known),
        frames_localized=sum(frame.ok for frame in frames),
        recall=recall(known) if known else None,
        false_accepts=sum(e.translation_m > FALSE_ACCEPT_M for e in errors) if known else None,
        **_error_fields(errors),
        **_prior_fields(known),
        coverage=coverage(known),
        latency_ms=latency(frames),
        statuses=_histogram(str(frame.status) for frame in frames),
        reasons=_histogram(frame.reason for frame in frames),
        map_sha256=rest.pop("map_sha256", None),
        weights_sha256=rest.pop("weights_sha256", None),
        interrupted=rest.pop("interrupted", None),
        provenance=rest,
    )


def recall(frames: Sequence[FrameResult]) -> dict[str, float]:
    """Return the share of frames within each threshold; a frame without a pose is outside."""
    return {
        str(limit): float(np.mean([f.error is not None and f.error.within(*limit) for f in frames]))
        for limit in THRESHOLDS
    }


def coverage(frames: Sequence[FrameResult]) -> Coverage | None:
    """Return how often errors are within the reported sigmas, per map axis."""
    pairs = [(f.error, f.sigma) for f in frames if f.error is not None and f.sigma is not None]
    if not pairs:
        return None
    return Coverage(
        translation=_shares([_ratio(e.map_xyz_m, s.xyz_m) for e, s in pairs]),
        rotation=_shares([_ratio(e.map_rotation_deg, s.rotation_deg) for e, s in pairs]),
    )


def latency(frames: Sequence[FrameResult]) -> Percentiles | None:
    """Return percentiles over all timed frames, localized or not."""
    times_ms = [frame.latency_ms for frame in frames if frame.latency_ms is not None]
    if not times_ms:
        return None
    p50, p95, p99 = np.percentile(times_ms, (50, 95, 99)).tolist()
    return Percentiles(p50=p50, p95=p95, p99=p99)


def _as_frames(
    estimates: Sequence[FrameResult] | Trajectory, truth: Trajectory | None
) -> list[FrameResult]:
    if isinstance(estimates, Trajectory):
        return compare_trajectories(estimates, truth or Trajectory.create([], []))
    if truth is None:
        return list(estimates)
    return [with_truth(frame, truth.at(frame.stamp_ns)) for frame in estimates]


def _error_fields(errors: Sequence[PoseError]) -> dict[str, Any]:
    metres = [error.translation_m for error in errors]
    degrees = [error.rotation_deg for error in errors]
    local = np.array([error.along_cross_up_m for error in errors]).reshape(-1, 3)
    return {
        "median_error_m": _percentile(metres, 50),
        "median_error_deg": _percentile(degrees, 50),
        "p95_error_m": _percentile(metres, 95),
        "p95_error_deg": _percentile(degrees, 95),
        "max_error_m": _percentile(metres, 100),
        "median_along_m": _percentile(np.abs(local[:, 0]).tolist(), 50),
        "median_cross_m": _percentile(np.abs(local[:, 1]).tolist(), 50),
        "bias_along_cross_up_m": tuple(local.mean(axis=0)) if errors else None,
    }


def _prior_fields(frames: Sequence[FrameResult]) -> dict[str, Any]:
    errors = [f.prior.error for f in frames if f.prior is not None and f.prior.error is not None]
    return {
        "median_prior_error_m": _percentile([error.translation_m for error in errors], 50),
        "median_prior_error_deg": _percentile([error.rotation_deg for error in errors], 50),
    }


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _ratio(error: Vector, sigma: Vector) -> np.ndarray:
    # A sigma of zero claims certainty: it only covers an error of zero.
    return np.abs(error) / np.maximum(sigma, np.finfo(float).tiny)


def _shares(ratios: Sequence[np.ndarray]) -> dict[str, Vector]:
    stacked = np.stack(ratios)
    return {str(k): tuple((stacked <= k).mean(axis=0).tolist()) for k in SIGMAS}


def _histogram(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
