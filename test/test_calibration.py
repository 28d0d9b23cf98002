"""Covariances that say how large errors are: per map, measured."""

import numpy as np
import pytest

from pixloc_ros.evaluation.calibration import GAUSSIAN, coverage, departure, fit, halves

SIGMAS = np.array([0.01, 0.005, 0.02, 1e-3, 0.0, 5e-4])


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors with the alignment's variance, which differs per frame, and the map's on top."""
    rng = np.random.default_rng(seed)
    variances = rng.uniform(0.5, 2.0, (count, 6)) * np.repeat([4e-6, 1e-7], 3)
    return rng.standard_normal((count, 6)) * np.sqrt(variances + SIGMAS**2), variances


def test_the_floor_that_errors_were_drawn_with_is_found() -> None:
    errors, variances = drawn(4000)
    found = fit(errors, variances)
    np.testing.assert_allclose(found.floors, SIGMAS, rtol=0.1, atol=1.5e-4)
    assert departure(found.coverage) < 0.02
    assert departure(halves(errors, variances)) < 0.03


def test_a_covariance_without_the_floor_boasts_and_coverage_tells() -> None:
    errors, variances = drawn(2000)
    assert coverage(errors, variances)[0, 0] < 0.5
    assert departure(coverage(errors, variances)) > 0.15


def test_heavy_tails_are_shared_between_the_core_and_the_tails() -> None:
    rng = np.random.default_rng(1)
    errors = 0.01 * rng.standard_t(3, (5000, 6))
    found = fit(errors, np.full((5000, 6), 1e-12))
    core = np.quantile(np.abs(errors[:, 0]), GAUSSIAN[0])  # what fits one sigma alone
    assert found.floors[0] > core
    assert departure(found.coverage) < departure(coverage(errors, np.full((5000, 6), core**2)))


def test_errors_smaller_than_the_alignment_says_need_no_floor() -> None:
    errors, variances = drawn(500)
    assert fit(0.1 * errors, variances + 1.0).floors == pytest.approx(np.zeros(6))
