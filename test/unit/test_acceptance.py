"""A pose is believed by its evidence: worse never helps, and refusals name what weighs most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.invented import COVARIANCE, alignment
from pixloc_ros.alignment import pose_covariance
from pixloc_ros.alignment.acceptance import Candidate, Decision, decide
from pixloc_ros.alignment.wrong_probability import (
    AGAINST,
    PLAIN,
    SUFFIX,
    Term,
    VerificationModel,
    WrongProbability,
    model_for,
    read_model,
)
from pixloc_ros.config import REPLACED, AcceptanceConfig, CovarianceConfig, from_flat
from pixloc_ros.errors import ConfigError
from pixloc_ros.features import weights
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Calibration
from pixloc_ros.types import Evidence, PosePrior, Reason

LIMITS = AcceptanceConfig()
MODEL = model_for("compact_seed", weights.load("compact_seed").sha256, "pixloc_ros")
T_MAP_BASE = se3.make(Rotation.from_euler("z", 30, degrees=True).as_matrix(), [5.0, -2.0, 0.3])
T_BASE_CAM = se3.base_from_optical()
EXACT = Calibration(scale=1.0, floor_m=(0.0,) * 3, floor_deg=(0.0,) * 3, frames=1)
GOOD = Evidence(sharpness=0.5, contrast=0.75, spread=1.0, runner_up_loss=np.inf)  # a clear day
HALVES_AGREE = replace(GOOD, halves_px=0.05)
WEIGHTS = {"sharpness": 30, "contrast": 20, "spread": 15, "halves_px": 5}
TERMS = [
    Term(evidence=name, weight=weight, typical=AGAINST[name](HALVES_AGREE))
    for name, weight in WEIGHTS.items()
]
INVENTED = MODEL.model_copy(
    update={
        "plain": WrongProbability(bias=-8.0, terms=tuple(TERMS[:-1])),
        "full": WrongProbability(bias=-8.0, terms=tuple(TERMS)),
    }
)
WORSE: dict[str, tuple[float, Reason, str]] = {
    "sharpness": (-0.1, Reason.LOW_CONTRAST, "-10 %"),
    "contrast": (0.02, Reason.LOW_CONTRAST, "2 %"),
    "spread": (0.0, Reason.FEW_INLIERS, "0 %"),
    "halves_px": (90.0, Reason.HALVES_DISAGREE, "90.0 px"),
}
evidences = st.builds(
    Evidence,
    sharpness=st.floats(-1, 1),
    contrast=st.floats(-1, 1),
    spread=st.floats(0, 1),
    runner_up_loss=st.one_of(st.floats(-20, 100), st.just(np.inf)),
    halves_px=st.one_of(st.floats(0, 500), st.just(np.inf), st.just(np.nan)),
)


def decision(
    offset_m: float = 0.0,
    evidence: Evidence = GOOD,
    model: VerificationModel = MODEL,
    **changes: Any,
) -> Decision:
    """On a faultless alignment but for the changes, of a prior `offset_m` ahead of it."""
    found = replace(alignment(T_MAP_BASE, T_MAP_BASE), **changes)
    T_prior = T_MAP_BASE @ se3.make(np.eye(3), [offset_m, 0.0, 0.0])
    candidate = Candidate(T_MAP_BASE, COVARIANCE, PosePrior(T_prior, np.eye(6), "gnss", 0), found)
    probability = model.wrong_probability(evidence, LIMITS.max_wrong_probability)
    return decide(candidate, evidence, probability, model.weightiest(evidence), LIMITS)


BEYOND: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.NOT_CONVERGED, {"converged": False}),
    (Reason.HIGH_COST, {"cost": LIMITS.max_cost + 1e-6}),
    (Reason.ILL_CONDITIONED, {"condition": 1.01 * LIMITS.max_condition}),
    (Reason.FAR_FROM_PRIOR, {"offset_m": 1.01 * LIMITS.max_sigma_from_prior}),
    (
        Reason.AMBIGUOUS,
        {"evidence": replace(GOOD, runner_up_loss=LIMITS.min_runner_up_loss - 0.01)},
    ),
]
WITHIN: list[dict[str, Any]] = [
    {},
    {"cost": LIMITS.max_cost},
    {"condition": LIMITS.max_condition},
    {"offset_m": 0.99 * LIMITS.max_sigma_from_prior},
    {"evidence": HALVES_AGREE},
    {"evidence": replace(GOOD, runner_up_loss=LIMITS.min_runner_up_loss)},
]


@pytest.mark.parametrize(("reason", "changes"), BEYOND)
def test_what_is_beyond_one_limit_is_refused_for_that(
    reason: Reason, changes: dict[str, Any]
) -> None:
    refused = decision(**changes)
    assert refused.reason is reason
    assert refused.message


@pytest.mark.parametrize("changes", WITHIN)
def test_what_is_just_within_the_limits_passes(changes: dict[str, Any]) -> None:
    assert decision(**changes).reason is Reason.OK


def test_the_first_limit_that_fails_is_the_reason() -> None:
    everything: dict[str, Any] = {}
    for reason, changes in reversed(BEYOND):
        everything |= changes
        assert decision(**everything).reason is reason


def test_the_message_names_value_and_limit() -> None:
    assert decision(cost=0.91).message == "cost 0.91 above 0.90"
    assert "6.0 sigma away from the gnss prior" in decision(offset_m=6.0).message


@pytest.mark.parametrize("name", WORSE)
def test_a_refusal_names_the_evidence_that_weighs_most_with_its_value(name: str) -> None:
    value, reason, words = WORSE[name]
    doubtful = replace(HALVES_AGREE, sharpness=0.3)  # not sure without the halves
    refused = decision(evidence=replace(doubtful, **{name: value}), model=INVENTED)
    assert refused.reason is reason
    assert words in refused.message
    assert "wrong with probability" in refused.message


@given(evidences, st.sampled_from(list(AGAINST)), st.floats(0, 1))
def test_worse_evidence_never_makes_a_pose_more_probable(
    evidence: Evidence, name: str, share: float
) -> None:
    for model in (MODEL.plain, MODEL.full):
        if model is MODEL.full and np.isnan(evidence.halves_px):
            continue
        before = model(evidence)
        assert 0.0 <= before <= 1.0
        after = model(replace(evidence, **{name: _worse(evidence, name, share)}))
        assert after >= before - 1e-12


def _worse(evidence: Evidence, name: str, share: float) -> float:
    value = getattr(evidence, name)
    return value + share if name == "halves_px" else value - share


def test_a_model_survives_its_file() -> None:
    again = VerificationModel.model_validate_json(MODEL.model_dump_json())
    assert again == MODEL


PACKAGED_MODELS = sorted(path.name for path in weights.PACKAGED.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize("file", PACKAGED_MODELS)
def test_packaged_models_are_of_the_packaged_weights(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = file.removesuffix(SUFFIX)
    model = model_for(name, weights.load(name).sha256, "pixloc_ros")
    assert not caplog.records
    assert model == read_model(weights.PACKAGED / file)
    assert [term.evidence for term in model.plain.terms] == list(PLAIN)
    assert [term.evidence for term in model.full.terms] == list(AGAINST)


def test_weights_without_a_model_of_their_own_are_told_so(caplog: pytest.LogCaptureFixture) -> None:
    other = model_for("my_weights.safetensors", "0" * 64, "pixloc_ros")
    assert other == MODEL
    assert "no calibrated verification for weights 'my_weights.safetensors'" in caplog.text
    assert "that of 'compact_seed' is used" in caplog.text


def test_a_model_beside_weights_that_are_not_its_own_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside = MODEL.model_copy(update={"protection_factor": 7.0})
    (tmp_path / f"mine{SUFFIX}").write_text(beside.model_dump_json())
    assert model_for(str(tmp_path / "mine.safetensors"), "0" * 64, "pixloc_ros") == beside
    assert "that of 'mine' is used" in caplog.text


@pytest.mark.parametrize("name", REPLACED)
def test_settings_that_are_gone_name_what_does_their_work(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' was removed: '{REPLACED[name]}'"):
        from_flat({name: 0.1})


def test_the_protection_level_grows_with_the_worst_direction() -> None:
    narrow = np.diag([0.01**2, 0.02**2, 0.01**2, 1e-4, 1e-4, 1e-4])
    level = pose_covariance.protection_level(narrow, MODEL)
    assert level.error_m == pytest.approx(0.02 * MODEL.protection_factor)
    wider = pose_covariance.protection_level(4 * narrow, MODEL)
    assert (wider.error_m, wider.risk) == (pytest.approx(2 * level.error_m), level.risk)


@given(st.floats(0.1, 10.0), st.floats(0.0, 100.0))
def test_a_vaguer_prior_allows_more_by_as_many_sigmas(sigma: float, offset: float) -> None:
    T_prior = T_MAP_BASE @ se3.make(np.eye(3), [0.0, offset, 0.0])
    prior = PosePrior(T_prior, sigma**2 * np.eye(6), "odometry", 0)
    found = alignment(T_MAP_BASE, T_MAP_BASE)
    candidate = Candidate(T_MAP_BASE, 1e-12 * np.eye(6), prior, found)
    reason = decide(candidate, GOOD, 0.0, "sharpness", LIMITS).reason
    assert (reason is Reason.OK) == (offset <= LIMITS.max_sigma_from_prior * sigma)


def test_the_covariance_is_scaled_and_floored_along_the_vehicle() -> None:
    found = alignment(T_MAP_BASE, T_MAP_BASE)
    T, plain = pose_covariance.base_pose_and_covariance(found, T_BASE_CAM, EXACT)
    np.testing.assert_allclose(T, T_MAP_BASE, atol=1e-12)
    floored = Calibration(scale=3.0, floor_m=(0.2, 0.0, 0.0), floor_deg=(0.0,) * 3, frames=1)
    _, covariance = pose_covariance.base_pose_and_covariance(found, T_BASE_CAM, floored)
    added = covariance - 3.0 * plain
    ahead = T_MAP_BASE[:3, 0]
    np.testing.assert_allclose(added[:3, :3], 0.04 * np.outer(ahead, ahead), atol=1e-12)
    np.testing.assert_allclose(added[3:, 3:], 0.0, atol=1e-12)


def test_the_covariance_is_larger_where_the_image_is_blurred_but_the_floor_is_not() -> None:
    found = alignment(T_MAP_BASE, T_MAP_BASE)
    floored = EXACT.model_copy(update={"floor_m": (0.2, 0.1, 0.3)})
    floor = pose_covariance.base_pose_and_covariance(found, T_BASE_CAM, floored)[1]
    floor = floor - pose_covariance.base_pose_and_covariance(found, T_BASE_CAM, EXACT)[1]
    clear, blurred, flat = (
        pose_covariance.base_pose_and_covariance(found, T_BASE_CAM, floored, sharpness)[1] - floor
        for sharpness in (pose_covariance.TYPICAL_SHARPNESS, 0.23, -1.0)
    )
    np.testing.assert_allclose(blurred, 2**1.5 * clear, rtol=1e-6)
    assert np.isfinite(flat).all()
    assert np.trace(flat) > np.trace(blurred)


def test_the_maps_own_calibration_wins_unless_told_otherwise() -> None:
    config = CovarianceConfig(scale=5.0, floor_m=0.1)
    of_map: Any = SimpleNamespace(calibration=EXACT)
    without: Any = SimpleNamespace(calibration=None)
    assert pose_covariance.calibration_of(of_map, config) is EXACT
    ignored = config.model_copy(update={"from_map": False})
    for map_, used in ((without, config), (of_map, ignored)):
        found = pose_covariance.calibration_of(map_, used)
        assert (found.scale, found.floor_m, found.frames) == (5.0, (0.1,) * 3, 0)
