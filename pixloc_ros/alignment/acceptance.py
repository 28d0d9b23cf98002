"""The decision: a pose is accepted, or the first limit that refuses it is the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pixloc_ros.config import AcceptanceConfig
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.types import Alignment, Evidence, Matrix, PosePrior, Reason

# By the evidence that weighs most if a pose is probably wrong.
REASONS: dict[str, Reason] = {
    "sharpness": Reason.LOW_CONTRAST,
    "contrast": Reason.LOW_CONTRAST,
    "spread": Reason.FEW_INLIERS,
    "halves_px": Reason.HALVES_DISAGREE,
}
WORDS: dict[str, Callable[[Evidence], str]] = {
    "sharpness": lambda e: f"a pose 6 px away loses only {100 * e.sharpness:.0f} % of the fit",
    "contrast": lambda e: f"poses 12 px away lose only {100 * e.contrast:.0f} % of the fit",
    "spread": lambda e: f"points agree in only {100 * e.spread:.0f} % of the image",
    "halves_px": lambda e: f"halves of the points disagree by {e.halves_px:.1f} px",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pose of the vehicle that may be accepted, and the alignment that found it."""

    T_map_base: Matrix  # (4, 4)
    covariance: Matrix  # (6, 6) in ROS order
    prior: PosePrior
    alignment: Alignment

    @property
    def is_finite(self) -> bool:
        """Whether the alignment came to a pose at all."""
        return bool(np.isfinite(self.alignment.cost) and np.isfinite(self.covariance).all())

    @property
    def sigmas_from_prior(self) -> float:
        """Mahalanobis distance from the prior."""
        error = cov.base_error(self.T_map_base, self.prior.T_map_base)
        return float(np.sqrt(cov.mahalanobis2(error, self.prior.covariance + self.covariance)))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a pose is accepted: Reason.OK, or the reason of the refusal, with one line."""

    reason: Reason
    message: str


NO_POSE = Decision(
    Reason.NON_FINITE, "no initial pose kept enough points in view with a solvable system"
)


def decide(
    candidate: Candidate,
    evidence: Evidence,
    wrong_probability: float,
    weightiest: str,
    config: AcceptanceConfig,
) -> Decision:
    """Accept a pose, or refuse it for the first limit that it exceeds.

    wrong_probability: of the evidence, of which `weightiest` names the one that speaks most
    against the pose.
    """
    accepted = Reason.OK, f"wrong with probability {wrong_probability:.1g}"
    refusals = _refusals(candidate, evidence, wrong_probability, weightiest, config)
    return Decision(*next(refusals, accepted))


def _refusals(
    candidate: Candidate,
    evidence: Evidence,
    wrong_probability: float,
    weightiest: str,
    config: AcceptanceConfig,
) -> Iterator[tuple[Reason, str]]:
    alignment = candidate.alignment
    if not alignment.converged:
        yield Reason.NOT_CONVERGED, f"still moving after {alignment.iterations[-1]} iterations"
    if alignment.cost > config.max_cost:
        yield Reason.HIGH_COST, f"cost {alignment.cost:.2f} above {config.max_cost:.2f}"
    if alignment.condition > config.max_condition:
        yield Reason.ILL_CONDITIONED, f"condition {alignment.condition:.1e} of the Hessian"
    distance = candidate.sigmas_from_prior
    if distance > config.max_sigma_from_prior:
        source = candidate.prior.source
        yield Reason.FAR_FROM_PRIOR, f"{distance:.1f} sigma away from the {source} prior"
    if wrong_probability > config.max_wrong_probability:
        words = f"{WORDS[weightiest](evidence)}; wrong with probability {wrong_probability:.2g}"
        yield REASONS[weightiest], words
    if evidence.runner_up_loss < config.min_runner_up_loss:
        loss = f"{100 * evidence.runner_up_loss:.0f} %"
        yield Reason.AMBIGUOUS, f"another pose loses only {loss} of the fit"
