"""Every gate refuses what it is for, says why, and lets everything else pass."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.invented import COVARIANCE, alignment
from pixloc_ros.alignment import verification
from pixloc_ros.config import AcceptanceConfig, CovarianceConfig
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Calibration
from pixloc_ros.types import PosePrior, Reason

LIMITS = AcceptanceConfig()
T_MAP_BASE = se3.make(Rotation.from_euler("z", 30, degrees=True).as_matrix(), [5.0, -2.0, 0.3])
T_BASE_CAM = se3.base_from_optical()
EXACT = Calibration(scale=1.0, floor_m=(0.0,) * 3, floor_deg=(0.0,) * 3, frames=1)


def verdict(
    offset_m: float = 0.0, covariance: np.ndarray = COVARIANCE, **changes: Any
) -> tuple[Reason, str]:
    """On a faultless alignment but for the changes, of a prior `offset_m` ahead of it."""
    found = replace(alignment(T_MAP_BASE, T_MAP_BASE), **changes)
    T_prior = T_MAP_BASE @ se3.make(np.eye(3), [offset_m, 0.0, 0.0])
    prior = PosePrior(T_prior, np.eye(6), "gnss", 0)
    return verification.judge(found, T_MAP_BASE, covariance, prior, LIMITS)


BEYOND: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.NON_FINITE, {"cost": np.inf}),
    (Reason.NON_FINITE, {"covariance": np.full((6, 6), np.nan)}),
    (Reason.NOT_CONVERGED, {"converged": False}),
    (Reason.HIGH_COST, {"cost": LIMITS.max_cost + 1e-6}),
    (Reason.FEW_INLIERS, {"inlier_share": LIMITS.min_inlier_share - 1e-6}),
    (Reason.ILL_CONDITIONED, {"condition": 1.01 * LIMITS.max_condition}),
    (Reason.FAR_FROM_PRIOR, {"offset_m": 1.01 * LIMITS.max_sigma_from_prior}),
    (Reason.AMBIGUOUS, {"runner_up_cost": 0.3 + 0.99 * LIMITS.ambiguity_margin}),
]
WITHIN: list[dict[str, Any]] = [
    {},
    {"cost": LIMITS.max_cost},
    {"inlier_share": LIMITS.min_inlier_share},
    {"condition": LIMITS.max_condition},
    {"offset_m": 0.99 * LIMITS.max_sigma_from_prior},
    {"runner_up_cost": 0.3 + 1.01 * LIMITS.ambiguity_margin},
]


@pytest.mark.parametrize(("reason", "changes"), BEYOND)
def test_what_is_beyond_one_limit_is_refused_for_that(
    reason: Reason, changes: dict[str, Any]
) -> None:
    given_reason, message = verdict(**changes)
    assert given_reason is reason
    assert message


@pytest.mark.parametrize("changes", WITHIN)
def test_what_is_just_within_the_limits_passes(changes: dict[str, Any]) -> None:
    assert verdict(**changes)[0] is Reason.OK


def test_the_first_gate_that_fails_is_the_reason() -> None:
    everything: dict[str, Any] = {}
    for reason, changes in reversed(BEYOND[2:]):  # from the last gate to the first finite one
        everything |= changes
        assert verdict(**everything)[0] is reason


def test_the_message_names_value_and_limit() -> None:
    assert verdict(cost=0.91)[1] == "cost 0.91 above 0.80"
    assert "6.0 sigma away from the gnss prior" in verdict(offset_m=6.0)[1]


@given(st.floats(0.1, 10.0), st.floats(0.0, 100.0))
def test_a_vaguer_prior_allows_more_by_as_many_sigmas(sigma: float, offset: float) -> None:
    prior = PosePrior(
        T_MAP_BASE @ se3.make(np.eye(3), [0.0, offset, 0.0]), sigma**2 * np.eye(6), "odometry", 0
    )
    found = alignment(T_MAP_BASE, T_MAP_BASE)
    reason, _ = verification.judge(found, T_MAP_BASE, 1e-12 * np.eye(6), prior, LIMITS)
    assert (reason is Reason.OK) == (offset <= LIMITS.max_sigma_from_prior * sigma)


def test_the_covariance_is_scaled_and_floored_along_the_vehicle() -> None:
    found = alignment(T_MAP_BASE, T_MAP_BASE)
    T, plain = verification.base_pose_and_covariance(found, T_BASE_CAM, EXACT)
    np.testing.assert_allclose(T, T_MAP_BASE, atol=1e-12)
    floored = Calibration(scale=3.0, floor_m=(0.2, 0.0, 0.0), floor_deg=(0.0,) * 3, frames=1)
    _, covariance = verification.base_pose_and_covariance(found, T_BASE_CAM, floored)
    added = covariance - 3.0 * plain
    ahead = T_MAP_BASE[:3, 0]
    np.testing.assert_allclose(added[:3, :3], 0.04 * np.outer(ahead, ahead), atol=1e-12)
    np.testing.assert_allclose(added[3:, 3:], 0.0, atol=1e-12)


def test_the_maps_own_calibration_wins_unless_told_otherwise() -> None:
    config = CovarianceConfig(scale=5.0, floor_m=0.1)
    of_map: Any = SimpleNamespace(calibration=EXACT)
    without: Any = SimpleNamespace(calibration=None)
    assert verification.calibration_of(of_map, config) is EXACT
    ignored = config.model_copy(update={"from_map": False})
    for map_, used in ((without, config), (of_map, ignored)):
        found = verification.calibration_of(map_, used)
        assert (found.scale, found.floor_m, found.frames) == (5.0, (0.1,) * 3, 0)
