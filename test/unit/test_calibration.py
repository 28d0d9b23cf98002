"""Covariances that say how large errors are: per map, measured."""

import numpy as np
import pytest

from pixloc_ros.evaluation.calibration import (
    GAUSSIAN,
    CalibrationSamples,
    calibration,
    coverage,
    cross_validated_coverage,
    fit,
)

SIGMAS = np.array([0.01, 0.005, 0.02, 1e-3, 0.0, 5e-4])


def drawn(count: int, seed: int = 0) -> CalibrationSamples:
    """Errors with the alignment's variance, which differs per frame, and the map's on top."""
    rng = np.random.default_rng(seed)
    variances = rng.uniform(0.5, 2.0, (count, 6)) * np.repeat([4e-6, 1e-7], 3)
    return CalibrationSamples(
        rng.standard_normal((count, 6)) * np.sqrt(variances + SIGMAS**2), variances
    )


def departure(shares: np.ndarray) -> float:
    return np.abs(shares - GAUSSIAN[:, None]).max()


def test_the_floor_that_errors_were_drawn_with_is_found() -> None:
    measured = drawn(4000)
    floors = fit(measured)
    np.testing.assert_allclose(floors, SIGMAS, rtol=0.1, atol=1.5e-4)
    assert departure(coverage(measured.errors, measured.variances + floors**2)) < 0.02
    assert departure(cross_validated_coverage(measured)) < 0.03
    found = calibration(measured, scale=1.0)
    np.testing.assert_allclose(found.floor_m, SIGMAS[:3], rtol=0.1)
    np.testing.assert_allclose(np.deg2rad(found.floor_deg), SIGMAS[3:], rtol=0.1, atol=1.5e-4)


def test_a_covariance_without_the_floor_boasts_and_coverage_tells() -> None:
    measured = drawn(2000)
    assert coverage(measured.errors, measured.variances)[0, 0] < 0.5


def test_heavy_tails_are_shared_between_the_core_and_the_tails() -> None:
    errors = 0.01 * np.random.default_rng(1).standard_t(3, (5000, 6))
    floors = fit(CalibrationSamples(errors, np.full((5000, 6), 1e-12)))
    core = np.quantile(np.abs(errors), GAUSSIAN[0], axis=0)  # what fits one sigma alone
    assert (floors > core).all()
    both = (departure(coverage(errors, np.full((5000, 6), 1.0) * f**2)) for f in (floors, core))
    assert next(both) < next(both)


def test_errors_smaller_than_the_alignment_says_need_no_floor() -> None:
    measured = drawn(500)
    floors = fit(CalibrationSamples(0.1 * measured.errors, measured.variances + 1.0))
    assert floors == pytest.approx(np.zeros(6))


def test_what_the_map_adds_is_not_scaled_with_the_alignments_variances() -> None:
    measured = drawn(4000)
    of_map = CalibrationSamples(measured.errors, measured.variances / 4, SIGMAS**2)
    assert departure(coverage(of_map.errors, of_map.scaled(4.0).variances)) < 0.02
