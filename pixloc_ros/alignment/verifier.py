"""From the best hypothesis to an estimate: a pose that is believed, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.alignment import verification
from pixloc_ros.alignment.evidence import EvidenceGatherer
from pixloc_ros.alignment.map_uncertainty import with_map_covariance
from pixloc_ros.alignment.problems import AlignmentProblem
from pixloc_ros.alignment.selection import Hypothesis, HypothesisSelector
from pixloc_ros.alignment.verification import Candidate, protection_level
from pixloc_ros.alignment.wrong_probability import VerificationModel
from pixloc_ros.geometry import se3
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.schema import MapMetadata
from pixloc_ros.priors.unconfirmed_pose import CONTRADICTION
from pixloc_ros.types import Alignment, Estimate, Matrix, Reason, Status, loss

_STATUS_OF = {Reason.OK: Status.OK, Reason.AMBIGUOUS: Status.AMBIGUOUS}


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges what the alignment of a frame came to."""

    metadata: MapMetadata
    model: VerificationModel
    selector: HypothesisSelector
    provisional: bool = False  # the frame was first aligned with provisional views

    def judge(self, best: Hypothesis) -> Estimate:
        """Judge the best hypothesis: a pose with its covariance, or the reason why not."""
        problem, config = best.problem, self.selector.config
        alignment = with_map_covariance(best.alignment, problem, self.selector.aligner)
        T_map_base, covariance = self._pose_and_covariance(alignment, problem)
        verdict = verification.verify(
            Candidate(T_map_base, covariance, problem.prior),
            EvidenceGatherer(problem, alignment, self.selector.aligner),
            self.model,
            config.acceptance.provisional() if self.provisional else config.acceptance,
        )
        if verdict.evidence is not None:
            sharpness = verdict.evidence.sharpness
            _, covariance = self._pose_and_covariance(alignment, problem, sharpness)
        message = verdict.message
        if alignment.hypotheses_dropped:
            message += f"; no memory for {alignment.hypotheses_dropped} more initial poses"
        ok = verdict.reason is Reason.OK
        return Estimate(
            status=_STATUS_OF.get(verdict.reason, Status.REJECTED),
            reason=verdict.reason,
            message=message,
            stamp_ns=problem.lead.stamp_ns,
            T_map_base=T_map_base if ok else None,
            covariance=covariance if ok else None,
            candidate_T_map_base=T_map_base if np.isfinite(T_map_base).all() else None,
            candidate_covariance=covariance if np.isfinite(covariance).all() else None,
            wrong_probability=verdict.wrong_probability,
            evidence=verdict.evidence,
            protection_level=protection_level(covariance, self.model) if ok else None,
            prior=problem.prior,
            alignment=alignment,
            cameras=tuple(i.frame.camera_name for i in problem.images if i.frame.camera_name),
            keyframes=problem.keyframes,
        )

    def refine(self, estimate: Estimate, found: Hypothesis) -> Estimate:
        """Refine an accepted pose; the evidence and the verdict remain those of the pose found.

        PixLoc as published has no such step.
        """
        config, evidence = self.selector.config, estimate.evidence
        wanted = config.view.refinement_observations and config.alignment.policy != "reference"
        if not (estimate.ok and estimate.alignment and evidence and wanted):
            return estimate
        judged = replace(found, alignment=estimate.alignment)
        alignment = self.selector.refine(judged).alignment
        T_map_base, covariance = self._pose_and_covariance(
            alignment, found.problem, evidence.sharpness
        )
        return replace(
            estimate,
            T_map_base=T_map_base,
            covariance=covariance,
            candidate_T_map_base=T_map_base,
            candidate_covariance=covariance,
            protection_level=protection_level(covariance, self.model),
            alignment=alignment,
        )

    def _pose_and_covariance(
        self,
        alignment: Alignment,
        problem: AlignmentProblem,
        sharpness: float = verification.TYPICAL_SHARPNESS,
    ) -> tuple[Matrix, Matrix]:
        calibration = verification.calibration_of(self.metadata, self.selector.config.covariance)
        return verification.base_pose_and_covariance(
            alignment, problem.lead.T_base_cam, calibration, sharpness
        )

    def compare_beyond_prior(self, estimate: Estimate, found: Hypothesis) -> Estimate:
        """Compare a believed pose with others that its prior excludes.

        One that explains the images clearly better contradicts the prior. Where some explain them
        about as well, the place rests on the prior alone, and the estimate says so.
        """
        if not estimate.ok:
            return estimate
        ambiguity_m = found.problem.prior.ambiguity_m
        if ambiguity_m is None:
            others = self.selector.beyond_prior(found)
            lost = _loss_beside(found, others)
            if lost >= self.selector.config.acceptance.beyond_prior_margin:
                better = self.judge(others[0])
                place = f"the pose {_distance_m(found, others[0]):.1f} m away that it allows"
                better_by = f"{place} loses {100 * lost:.0f} % of the fit"
                return replace(better, message=f"{better.message}; {better_by}")
            ambiguity_m = max((_distance_m(each, found) for each in others), default=0.0)
        return _with_ambiguity(estimate, ambiguity_m)


def _distance_m(one: Hypothesis, other: Hypothesis) -> float:
    return se3.distance_m(one.alignment.T_map_cam, other.alignment.T_map_cam)


def _loss_beside(found: Hypothesis, others: Sequence[Hypothesis]) -> float:
    """Share of the agreement that a pose loses beside the best of others."""
    return loss(found.alignment.cost, others[0].alignment.cost) if others else 0.0


def _with_ambiguity(estimate: Estimate, ambiguity_m: float) -> Estimate:
    """The estimate with what the comparison with other places told; 0: there is none as good.

    Other places are errors to reckon with, if the prior is wrong: the protection level covers them.
    """
    if not ambiguity_m:
        return replace(estimate, ambiguity_m=0.0)
    estimate = replace(estimate, ambiguity_m=ambiguity_m)
    places = f"a place {ambiguity_m:.1f} m away explains the image about as well"
    source = estimate.prior.source if estimate.prior else ""
    if source in (retrieval.SOURCE, CONTRADICTION):  # such a prior is of the images themselves
        refused = estimate.rejected(Reason.AMBIGUOUS, places)
        return replace(refused, status=Status.AMBIGUOUS)
    level = estimate.protection_level
    return replace(
        estimate,
        message=f"{estimate.message}; {places}, and only the {source} prior tells them apart",
        protection_level=level and replace(level, error_m=level.error_m + ambiguity_m),
    )
