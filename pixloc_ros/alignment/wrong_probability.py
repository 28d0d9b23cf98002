"""The probability that a pose is wrong, given the evidence: a logistic model, fitted once.

Every term is a piece of evidence on a scale on which more of it always speaks the same way, so the
probability never falls when evidence gets worse. docs/lab/verification.md has the fit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pixloc_ros.common import foreign_files
from pixloc_ros.config import FeaturesConfig
from pixloc_ros.errors import WeightsError
from pixloc_ros.features.weights import PACKAGED
from pixloc_ros.types import Evidence

log = logging.getLogger(__name__)

SUFFIX = ".verification.json"  # beside the weights
HALVES_PX = (0.01, 100.0)  # beyond these, halves agree or disagree as much as they can

# What speaks for a wrong pose, the more the larger the value.
AGAINST: dict[str, Callable[[Evidence], float]] = {
    "sharpness": lambda e: -e.sharpness,
    "contrast": lambda e: -e.contrast,
    "spread": lambda e: -e.spread,
    "halves_px": lambda e: math.log10(min(max(e.halves_px, HALVES_PX[0]), HALVES_PX[1])),
}
PLAIN = ("sharpness", "contrast", "spread")  # without the halves


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Term(_Model):
    """One kind of evidence in the logit. weight: per unit of its AGAINST value."""

    evidence: str
    weight: float = Field(ge=0)
    typical: float  # AGAINST value of right poses, where the term counts as nothing


class WrongProbability(_Model):
    """A logistic model: bias of a right pose with typical evidence, and what departs from it."""

    bias: float
    terms: tuple[Term, ...]

    def __call__(self, evidence: Evidence) -> float:
        """The probability (0..1) that the pose is wrong."""
        logit = self.bias + sum(self._parts(evidence).values())
        return 1.0 / (1.0 + math.exp(-min(max(logit, -60.0), 60.0)))

    def weightiest(self, evidence: Evidence) -> str:
        """The name of the evidence that speaks most against the pose."""
        parts = self._parts(evidence)
        return max(parts, key=lambda name: parts[name])

    def _parts(self, evidence: Evidence) -> dict[str, float]:
        parts = {}
        for term in self.terms:
            value = AGAINST[term.evidence](evidence)
            parts[term.evidence] = term.weight * (value - term.typical)
        return parts


class VerificationModel(_Model):
    """What was fitted for one network and one policy, and where it came from."""

    weights_sha256: str
    policy: str
    plain: WrongProbability  # without the halves
    full: WrongProbability
    protection_factor: float = Field(gt=0)  # on the largest sigma of the position
    protection_risk: float = Field(gt=0, lt=1)  # that the error of a right pose is larger
    fitted: dict[str, str | int | float] = Field(default_factory=dict)  # for people

    def wrong_probability(self, evidence: Evidence, limit: float) -> float:
        """The probability (0..1) that a pose is wrong, by all evidence that there is.

        The halves add nothing where the other evidence is enough for the limit.
        """
        plain = self.plain(evidence)
        if plain <= limit or math.isnan(evidence.halves_px):
            return plain
        return self.full(evidence)

    def weightiest(self, evidence: Evidence) -> str:
        """The name of the evidence that speaks most against a pose."""
        model = self.plain if math.isnan(evidence.halves_px) else self.full
        return model.weightiest(evidence)


def read_model(path: Path) -> VerificationModel:
    """The model in a file; raises WeightsError."""
    content = foreign_files.read_json(path, WeightsError)
    with foreign_files.refusing(WeightsError, path):
        return VerificationModel.model_validate(content)


def model_for(weights: str, sha256: str, policy: str) -> VerificationModel:
    """The model of some weights, by name or path: beside them, or that of the default weights.

    The log says so when the model is not of these weights and this policy.
    """
    packaged = PACKAGED / f"{FeaturesConfig().weights}{SUFFIX}"
    own = (PACKAGED if Path(weights).suffix == "" else Path(weights).parent) / (
        f"{Path(weights).stem}{SUFFIX}"
    )
    path = own if own.is_file() else packaged
    model = read_model(path)
    if (model.weights_sha256, model.policy) != (sha256, policy):
        log.warning(
            "no calibrated verification for weights '%s' with policy '%s': that of '%s' is used; "
            "`pixloc verification fit` makes one",
            weights, policy, path.name.removesuffix(SUFFIX),
        )  # fmt: skip
    return model
