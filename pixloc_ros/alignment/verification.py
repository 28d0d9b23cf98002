"""Verification: from the best hypothesis of a frame to an estimate, accepted or refused.

`Verifier.verify` takes four steps, each of which is one file:

1. evidence.py: what is measured on the image that speaks for and against the pose;
2. wrong_probability.py: the probability that the pose is wrong, given the evidence;
3. acceptance.py: the decision, by this probability and a few limits;
4. pose_covariance.py: how large the error is, if the pose is right.

An accepted pose is then refined, and compared with poses that its prior excludes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.alignment import pose_covariance
from pixloc_ros.alignment.acceptance import NO_POSE, Candidate, Decision, decide
from pixloc_ros.alignment.evidence import EvidenceGatherer
from pixloc_ros.alignment.map_uncertainty import with_map_covariance
from pixloc_ros.alignment.problems import AlignmentProblem
from pixloc_ros.alignment.selection import Hypothesis, HypothesisSelector
from pixloc_ros.alignment.wrong_probability import VerificationModel
from pixloc_ros.config import AcceptanceConfig
from pixloc_ros.geometry import se3
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.schema import MapMetadata
from pixloc_ros.priors.unconfirmed_pose import CONTRADICTION
from pixloc_ros.types import Alignment, Estimate, Evidence, Reason, Status, loss

HOPELESS = 0.999  # probability of being wrong above which the halves cannot change the decision
_STATUS_OF = {Reason.OK: Status.OK, Reason.AMBIGUOUS: Status.AMBIGUOUS}


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies what the alignment of a frame came to."""

    metadata: MapMetadata
    model: VerificationModel
    selector: HypothesisSelector
    provisional: bool = False  # the frame was first aligned with provisional views

    def verify(self, best: Hypothesis) -> Estimate:
        """Accept the best hypothesis as a pose with its covariance, or give the reason why not."""
        problem, limits = best.problem, self._limits
        alignment = with_map_covariance(best.alignment, problem, self.selector.aligner)
        candidate = self._candidate(alignment, problem)
        if not candidate.is_finite:
            return self._estimate(candidate, NO_POSE, problem)
        evidence = self._measure(alignment, problem)
        probability = self.model.wrong_probability(evidence, limits.max_wrong_probability)
        weightiest = self.model.weightiest(evidence)
        decision = decide(candidate, evidence, probability, weightiest, limits)
        candidate = self._candidate(alignment, problem, evidence.sharpness)
        estimate = self._estimate(candidate, decision, problem)
        return replace(estimate, wrong_probability=probability, evidence=evidence)

    def refine(self, estimate: Estimate, found: Hypothesis) -> Estimate:
        """Refine an accepted pose; evidence and decision remain those of the pose found.

        PixLoc as published has no such step.
        """
        config, evidence = self.selector.config, estimate.evidence
        wanted = config.view.refinement_observations and config.alignment.policy != "reference"
        if not (estimate.ok and estimate.alignment and evidence and wanted):
            return estimate
        verified = replace(found, alignment=estimate.alignment)
        alignment = self.selector.refine(verified).alignment
        refined = self._candidate(alignment, found.problem, evidence.sharpness)
        return replace(
            estimate,
            T_map_base=refined.T_map_base,
            covariance=refined.covariance,
            candidate_T_map_base=refined.T_map_base,
            candidate_covariance=refined.covariance,
            protection_level=pose_covariance.protection_level(refined.covariance, self.model),
            alignment=alignment,
        )

    def compare_beyond_prior(self, estimate: Estimate, found: Hypothesis) -> Estimate:
        """Compare an accepted pose with others that its prior excludes.

        One that explains the images clearly better contradicts the prior. Where some explain them
        about as well, the place rests on the prior alone, and the estimate says so. It also says
        where one that the prior allows has been only a little worse.
        """
        if not estimate.ok:
            return estimate
        beyond_m = found.problem.prior.ambiguity_m
        if beyond_m is None:
            others = self.selector.beyond_prior(found)
            lost = _loss_relative_to_best(found, others)
            if lost >= self.selector.config.acceptance.beyond_prior_margin:
                better = self.verify(others[0])
                place = f"the pose {_distance_m(found, others[0]):.1f} m away that it allows"
                better_by = f"{place} loses {100 * lost:.0f} % of the fit"
                return replace(better, message=f"{better.message}; {better_by}")
            beyond_m = max((_distance_m(each, found) for each in others), default=0.0)
        return _with_ambiguity(estimate, beyond_m, self._runner_up_m(found.alignment))

    def _runner_up_m(self, alignment: Alignment) -> float:
        """How far the next best pose that the prior allows is, if it loses little; else 0."""
        T_map_cam = alignment.runner_up_T_map_cam
        margin = self.selector.config.acceptance.beyond_prior_margin
        if T_map_cam is None or alignment.runner_up_loss >= margin:
            return 0.0
        return se3.distance_m(alignment.T_map_cam, T_map_cam)

    @property
    def _limits(self) -> AcceptanceConfig:
        acceptance = self.selector.config.acceptance
        return acceptance.provisional() if self.provisional else acceptance

    def _measure(self, alignment: Alignment, problem: AlignmentProblem) -> Evidence:
        """Measure the evidence; that of the halves, which takes longest, only if it may decide."""
        gatherer = EvidenceGatherer(problem, alignment, self.selector.aligner)
        evidence, limits = gatherer.evidence(), self._limits
        is_open = limits.max_wrong_probability < self.model.plain(evidence) < HOPELESS
        if is_open or limits.always_compare_halves:
            return replace(evidence, halves_px=gatherer.halves_px())
        return evidence

    def _candidate(
        self,
        alignment: Alignment,
        problem: AlignmentProblem,
        sharpness: float = pose_covariance.TYPICAL_SHARPNESS,
    ) -> Candidate:
        config = self.selector.config.covariance
        calibration = pose_covariance.calibration_of(self.metadata, config)
        T_map_base, covariance = pose_covariance.base_pose_and_covariance(
            alignment, problem.lead.T_base_cam, calibration, sharpness
        )
        return Candidate(T_map_base, covariance, problem.prior, alignment)

    def _estimate(
        self, candidate: Candidate, decision: Decision, problem: AlignmentProblem
    ) -> Estimate:
        """Make the estimate of a decision; without evidence, a pose counts as wrong."""
        T_map_base, covariance = candidate.T_map_base, candidate.covariance
        alignment, message = candidate.alignment, decision.message
        if alignment.hypotheses_dropped:
            message += f"; no memory for {alignment.hypotheses_dropped} more initial poses"
        ok = decision.reason is Reason.OK
        level = pose_covariance.protection_level(covariance, self.model) if ok else None
        return Estimate(
            status=_STATUS_OF.get(decision.reason, Status.REJECTED),
            reason=decision.reason,
            message=message,
            stamp_ns=problem.lead.stamp_ns,
            T_map_base=T_map_base if ok else None,
            covariance=covariance if ok else None,
            candidate_T_map_base=T_map_base if np.isfinite(T_map_base).all() else None,
            candidate_covariance=covariance if np.isfinite(covariance).all() else None,
            wrong_probability=1.0,
            protection_level=level,
            prior=problem.prior,
            alignment=alignment,
            cameras=tuple(i.frame.camera_name for i in problem.images if i.frame.camera_name),
            keyframes=problem.keyframes,
        )


def _distance_m(one: Hypothesis, other: Hypothesis) -> float:
    return se3.distance_m(one.alignment.T_map_cam, other.alignment.T_map_cam)


def _loss_relative_to_best(found: Hypothesis, others: Sequence[Hypothesis]) -> float:
    """Share of the agreement that a pose loses relative to the best of others."""
    return loss(found.alignment.cost, others[0].alignment.cost) if others else 0.0


def _with_ambiguity(estimate: Estimate, beyond_m: float, runner_up_m: float) -> Estimate:
    """The estimate with what the comparison with other places told.

    beyond_m, runner_up_m: distance to those that fit about as well, the farthest that the prior
    excludes and the best that it allows; 0: there is none. They are errors to reckon with, and the
    protection level covers them.
    """
    ambiguity_m = max(beyond_m, runner_up_m)
    estimate = replace(estimate, ambiguity_m=ambiguity_m)
    if not ambiguity_m:
        return estimate
    places = f"a place {ambiguity_m:.1f} m away explains the image about as well"
    source = estimate.prior.source if estimate.prior else ""
    if source in (retrieval.SOURCE, CONTRADICTION):  # such a prior is of the images themselves
        refused = estimate.rejected(Reason.AMBIGUOUS, places)
        return replace(refused, status=Status.AMBIGUOUS)
    if beyond_m:
        places += f", and only the {source} prior tells them apart"
    level = estimate.protection_level
    return replace(
        estimate,
        message=f"{estimate.message}; {places}",
        protection_level=level and replace(level, error_m=level.error_m + ambiguity_m),
    )
