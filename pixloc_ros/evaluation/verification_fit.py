"""Fit the probability of being wrong to recorded shots, and judge it on other shots.

docs/lab/verification.md lists the places and sessions used to fit, to select and to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from scipy.special import betaincinv

from pixloc_ros.alignment.wrong_probability import (
    AGAINST,
    PLAIN,
    Term,
    VerificationModel,
    WrongProbability,
)
from pixloc_ros.common import foreign_files
from pixloc_ros.config import AcceptanceConfig
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.shots import Shot
from pixloc_ros.types import Evidence

Array = NDArray[np.float64]

RIGHT_M, RIGHT_DEG = 0.25, 2.0  # a pose within both limits is right
WRONG_M, WRONG_DEG = 0.5, 5.0  # beyond either limit it is wrong; in between, it is neither
RIDGE = 1e-4  # penalty on squared weights of standardized evidence
RISK = 0.01  # that the error of an accepted pose exceeds the protection level


class ShotRecord(BaseModel):
    """One shot: its result and its evidence. Without errors, the image shows another place."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    place: str  # where the images were taken, and which map was used
    session: str  # the day, or how the image was degraded
    prior: str
    frame: str
    reason: str
    error_m: float | None = None
    error_deg: float | None = None
    sigma_m: float | None = None  # largest sigma of the position, by the estimate's covariance
    evidence: dict[str, float]

    @property
    def wrong(self) -> bool | None:
        """Whether the pose is wrong; None if it is neither right nor far off."""
        if self.error_m is None or self.error_deg is None:
            return True
        if self.error_m <= RIGHT_M and self.error_deg <= RIGHT_DEG:
            return False
        return True if self.error_m > WRONG_M or self.error_deg > WRONG_DEG else None

    @property
    def facts(self) -> Evidence:
        """The evidence as the localizer computes it."""
        return Evidence(**self.evidence)


def record(shot: Shot, place: str, session: str, prior: str) -> ShotRecord | None:
    """Make the record of a shot; None if nothing was aligned."""
    estimate = shot.estimate
    if estimate.evidence is None:
        return None
    covariance = estimate.candidate_covariance
    sigma_m = None
    if covariance is not None:
        sigma_m = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]))
    return ShotRecord(
        place=place,
        session=session,
        prior=prior,
        frame=estimate.name,
        reason=estimate.reason.value,
        error_m=shot.error_m if np.isfinite(shot.error_m) else None,
        error_deg=shot.error_deg if np.isfinite(shot.error_deg) else None,
        sigma_m=sigma_m,
        evidence=asdict(estimate.evidence),
    )


def read_records(paths: Iterable[Path]) -> list[ShotRecord]:
    """Read records from JSON lines files. Raises DataError."""
    records = []
    for path in paths:
        lines = foreign_files.read_text(path, DataError).splitlines()
        with foreign_files.refusing(DataError, path):
            records += [ShotRecord.model_validate_json(line) for line in lines if line.strip()]
    return records


def fit(records: Sequence[ShotRecord], weights_sha256: str, policy: str) -> VerificationModel:
    """Fit a model to shots. Raises DataError if right or wrong ones are missing."""
    clear = [each for each in records if each.wrong is not None]
    right = [each for each in clear if not each.wrong]
    if not right or len(right) == len(clear):
        raise DataError(f"{len(right)} right and {len(clear) - len(right)} wrong shots: give both")
    with_halves = [each for each in clear if np.isfinite(each.evidence["halves_px"])]
    model = VerificationModel(
        weights_sha256=weights_sha256,
        policy=policy,
        plain=fit_logistic(clear, PLAIN),
        full=fit_logistic(with_halves, tuple(AGAINST)),
        protection_factor=1.0,
        protection_risk=RISK,
        fitted={"right": len(right), "wrong": len(clear) - len(right)},
    )
    return model.model_copy(update={"protection_factor": _protection_factor(model, records)})


def _protection_factor(model: VerificationModel, records: Sequence[ShotRecord]) -> float:
    """Return the factor on sigma that errors of accepted poses exceed with the stated risk.

    Poses that are neither right nor wrong are included; wrong ones are not, as the probability of
    being wrong covers them.
    """
    limit = AcceptanceConfig().max_wrong_probability
    ratios = [
        each.error_m / each.sigma_m
        for each in records
        if each.error_m is not None and each.sigma_m and not each.wrong
        if model.wrong_probability(each.facts, limit) <= limit
    ]
    return round(float(np.quantile(ratios, 1 - RISK, method="higher")), 1)


def fit_logistic(records: Sequence[ShotRecord], names: Sequence[str]) -> WrongProbability:
    """Fit non-negative weights; right and wrong poses have equal total weight.

    Within the right poses, and within the wrong ones, all groups of one place and session have
    equal weight. So the probability is that of a pose which is as likely to be wrong as right
    before its evidence is considered.
    """
    wrong = np.array([bool(each.wrong) for each in records])
    facts = [each.facts for each in records]
    values = np.array([[AGAINST[name](each) for name in names] for each in facts])
    typical, scale = np.median(values[~wrong], 0), values.std(0) + 1e-9
    scaled, sample_weight = (values - typical) / scale, _balanced(records, wrong)

    def loss(parameters: Array) -> tuple[float, Array]:
        weights, bias = parameters[:-1], parameters[-1]
        logit = scaled @ weights + bias
        likelihood = sample_weight @ (np.logaddexp(0, logit) - wrong * logit)
        residual = sample_weight * (1 / (1 + np.exp(-logit)) - wrong)
        gradient = np.append(scaled.T @ residual + 2 * RIDGE * weights, residual.sum())
        return float(likelihood + RIDGE * (weights @ weights)), gradient

    bounds = [(0, None)] * len(names) + [(None, None)]
    found = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    terms = (
        Term(evidence=name, weight=round(float(w / s), 4), typical=round(float(t), 4))
        for name, w, s, t in zip(names, found, scale, typical, strict=False)
    )
    return WrongProbability(bias=round(float(found[-1]), 4), terms=tuple(terms))


def _balanced(records: Sequence[ShotRecord], wrong: NDArray[np.bool_]) -> Array:
    """Return weights (N,) with sum 1: half for wrong and half for right shots, equal per group."""
    groups = [(each.place, each.session, bool(each.wrong)) for each in records]
    count = {group: groups.count(group) for group in set(groups)}
    of_kind = {kind: sum(group[2] == kind for group in count) for kind in (False, True)}
    return np.array([0.5 / (of_kind[group[2]] * count[group]) for group in groups])


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Counts of accepted shots at one limit of the probability."""

    limit: float
    right: int
    right_accepted: int
    wrong: int
    wrong_accepted: int

    @property
    def wrong_bound(self) -> float:
        """Upper bound of the share of wrong poses that are accepted, with 95 % confidence."""
        return upper_bound(self.wrong_accepted, self.wrong)


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a share (Clopper and Pearson 1934); 1 without trials."""
    return 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, confidence))


def acceptance(
    model: VerificationModel, records: Sequence[ShotRecord], limits: Sequence[float]
) -> list[Acceptance]:
    """Count, at each limit, the shots that the evidence alone accepts, whatever their prior."""
    curve, clear = [], [each for each in records if each.wrong is not None]
    wrong = np.array([bool(each.wrong) for each in clear])
    for limit in limits:
        passed = [model.wrong_probability(each.facts, limit) <= limit for each in clear]
        right_passed, wrong_passed = int((~wrong)[passed].sum()), int(wrong[passed].sum())
        counts = (int((~wrong).sum()), right_passed, int(wrong.sum()), wrong_passed)
        curve.append(Acceptance(limit, *counts))
    return curve
