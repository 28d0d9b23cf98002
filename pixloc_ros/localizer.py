"""Where is this frame on the map? The whole story, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from pixloc_ros.alignment import verification
from pixloc_ros.alignment.coarse_to_fine import Aligner
from pixloc_ros.alignment.cuda.fused_aligner import fused_aligner
from pixloc_ros.alignment.evidence import Witness
from pixloc_ros.alignment.problems import AlignmentProblem, ImageFeatures, ViewSelector
from pixloc_ros.alignment.selection import Hypothesis, HypothesisSelector
from pixloc_ros.alignment.verification import Candidate, protection_level
from pixloc_ros.alignment.wrong_probability import model_for
from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.global_prior import GlobalPrior
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status, loss


class Localizer:
    """Aligns frames to a preloaded map, starting from a prior.

    With a ConfigHolder, a change of the configuration counts from the next frame on; the map, the
    network and the device stay those of the beginning. global_prior: proposes poses for frames that
    come without a prior; those that it does not know are searched for on the map. Raises MapError
    when the map was built with other network weights.
    """

    def __init__(
        self,
        config: Config | ConfigHolder,
        map: Map | None = None,
        global_prior: GlobalPrior | None = None,
    ):
        self.holder = config if isinstance(config, ConfigHolder) else ConfigHolder(config)
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        self.map = map or Map.load(config.map, tiles=config.tiles, device=config.device)
        self.features = FeatureExtractor(
            config.features.weights,
            config.device,
            config.features.max_side_px or self.map.metadata.max_side_px,
            config.features.precision,
            config.features.backend,
        )
        _check_same_weights(self.map, self.features)
        self.kernels = fused_aligner(self.features.damping)
        self.global_prior = global_prior
        self.verification = model_for(
            config.features.weights, self.features.sha256, config.alignment.policy
        )

    @property
    def config(self) -> Config:
        """The configuration in force now."""
        return self.holder.current

    @property
    def can_search(self) -> bool:
        """Whether a frame without any prior can be searched for on the whole map."""
        return self.config.retrieval.enabled and self.map.keyframe_descriptors is not None

    @torch.inference_mode()
    def localize(
        self,
        frame: Frame,
        prior: PosePrior | Sequence[PosePrior] | None = None,
        other_cameras: Sequence[Frame] = (),
    ) -> Estimate:
        """Find the pose of the vehicle at the frame's stamp, or a status and the reason why not.

        prior: of several, the best one wins and the others are its alternatives. Without any, they
        are places on the map found by image retrieval.
        other_cameras: frames of the vehicle's other cameras at that time, for one pose of all.
        Cameras that are of no use are left out.
        """
        frames: Sequence[Frame] = (frame, *other_cameras)
        given = [prior] if isinstance(prior, PosePrior) else list(prior or ())
        config, watch = self.config, Stopwatch()  # one configuration for all of a frame
        views = ViewSelector(self.map, config)
        try:
            with watch("views"):  # first: frames that are off the map need no network
                frames = self._usable(frames, given, views)
            with watch("features"):
                images = [ImageFeatures(f, self.features.extract(f.image_rgb)) for f in frames]
            with watch("retrieval"):
                priors = given or self._propose(images[0], views)
            estimate = self._align(images, priors, config, watch)
            if given and _worth_second_attempt(estimate, config):
                second = self._align(images, priors, _from_middle_level(config), watch)
                estimate = second if second.ok else estimate
        except _CannotLocalize as failure:
            return _failed(frame, failure.reason, failure.message, given)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            return _failed(frame, Reason.OUT_OF_MEMORY, str(error).partition("\n")[0], given)
        message = estimate.message + _shutter_note(frames, config)
        return replace(
            estimate,
            message=message,
            stamp_ns=frame.stamp_ns,
            name=frame.name,
            timing_ms=watch.timing_ms,
        )

    def _align(
        self,
        images: Sequence[ImageFeatures],
        priors: Sequence[PosePrior],
        config: Config,
        watch: Stopwatch,
    ) -> Estimate:
        """Find the pose that explains the images best, and judge it."""
        views = ViewSelector(self.map, config, images)
        selector = HypothesisSelector(views, self.aligner(config), config)
        with watch("initial_poses"):
            problems = self._problems(images, priors, views)
        with watch("coarse_screening"):
            promising = selector.screen(problems)
        with watch("alignment"):
            hypotheses = [selector.align(problem) for problem in promising]
        with watch("re_alignment"):
            best = selector.select(hypotheses)
        with watch("alternative_poses"):
            best = selector.compare_with_alternatives(best)
        best = _with_counts(best, problems, hypotheses)
        with watch("verification"):
            estimate = self._verify(best, config)
        with watch("beyond_prior"):
            return self._compare_beyond_prior(estimate, best, selector, config)

    def _compare_beyond_prior(
        self, estimate: Estimate, found: Hypothesis, selector: HypothesisSelector, config: Config
    ) -> Estimate:
        """Compare a believed pose with others that its prior excludes.

        One that explains the images clearly better contradicts the prior. Where some explain them
        about as well, the place rests on the prior alone, and the estimate says so.
        """
        if not estimate.ok:
            return estimate
        ambiguity_m = found.problem.prior.ambiguity_m
        if ambiguity_m is None:
            others = selector.beyond_prior(found)
            lost = _loss_beside(found, others)
            if lost >= config.acceptance.beyond_prior_margin:
                better = self._verify(others[0], config)
                place = f"the pose {_distance_m(found, others[0]):.1f} m away that it allows"
                better_by = f"{place} loses {100 * lost:.0f} % of the fit"
                return replace(better, message=f"{better.message}; {better_by}")
            ambiguity_m = max((_distance_m(each, found) for each in others), default=0.0)
        return _with_ambiguity(estimate, ambiguity_m)

    def _problems(
        self, images: Sequence[ImageFeatures], priors: Sequence[PosePrior], views: ViewSelector
    ) -> list[AlignmentProblem]:
        """What to align with what, or the reason why there is nothing."""
        problems = [problem for prior in priors for problem in views.problems(images, prior)]
        if problems:
            return problems
        message = f"too few map points at {len(priors)} places where it might be"
        if self.map.tiles.missing:
            raise _CannotLocalize(Reason.TILES_MISSING, f"{message}; {self._missing()}")
        raise _CannotLocalize(Reason.TOO_FEW_POINTS, message)

    def aligner(self, config: Config) -> Aligner:
        """The aligner of a configuration, on this localizer's device."""
        return Aligner(self.features.damping, config.alignment, config.hypotheses, self.kernels)

    def _propose(self, image: ImageFeatures, views: ViewSelector) -> list[PosePrior]:
        """Where a frame might be that nothing else tells of."""
        if self.global_prior is not None:
            proposed = self.global_prior.propose(image.frame, image.pyramid)
            if proposed:
                return proposed
            if not self.can_search:
                raise _CannotLocalize(Reason.NO_PRIOR, "the global prior does not know this frame")
        return views.retrieve(image)

    def _usable(
        self, frames: Sequence[Frame], priors: Sequence[PosePrior], views: ViewSelector
    ) -> Sequence[Frame]:
        """The frames worth aligning, or the reason why there is none.

        With exactly one prior the view of every frame is checked. Otherwise only the image is, and
        the first frame must pass, because its image says where to search.
        """
        if not (priors or self.global_prior or self.can_search):
            raise _CannotLocalize(Reason.NO_PRIOR, self._why_no_search())
        refusals = [self._unusable(frame, priors, views) for frame in frames]
        if refusals[0] and (all(refusals) or len(priors) != 1):
            raise _CannotLocalize(*refusals[0])
        return [frame for frame, refusal in zip(frames, refusals, strict=True) if not refusal]

    def _unusable(
        self, frame: Frame, priors: Sequence[PosePrior], views: ViewSelector
    ) -> tuple[Reason, str] | None:
        if refusal := _wrong_size(frame):
            return refusal
        if len(priors) != 1:
            return None
        prior, limits = priors[0], views.config.view
        view = views.view(frame, prior.T_map_base, prior.point_ids)
        if view.nearest_m > limits.max_distance_m:
            return Reason.OUT_OF_MAP, f"nearest keyframe is {view.nearest_m:.0f} m away"
        if len(view) < limits.min_points and view.missing:
            return Reason.TILES_MISSING, f"only {len(view)} map points in view; {self._missing()}"
        if len(view) < limits.min_points:
            refused = self.map.tiles.refused
            damage = f"; refused tiles of the map: {', '.join(refused)}" if refused else ""
            return Reason.TOO_FEW_POINTS, f"only {len(view)} map points in view{damage}"
        return None

    def _missing(self) -> str:
        """Which tiles of a map behind a URL are not here, and why."""
        return f"tiles not here: {self.map.tiles.missing_note or 'just fetched'}"

    def _why_no_search(self) -> str:
        message = "no odometry, GNSS or initial pose yet"
        if self.map.keyframe_descriptors is None:
            return f"{message}; the map has no descriptors to search by: build it again"
        return f"{message}; searching the map is switched off (retrieval.enabled)"

    def _verify(self, best: Hypothesis, config: Config) -> Estimate:
        """Judge what the alignment came to: a pose with its covariance, or the reason why not."""
        problem, alignment = best.problem, best.alignment
        calibration = verification.calibration_of(self.map.metadata, config.covariance)
        T_map_base, covariance = verification.base_pose_and_covariance(
            alignment, problem.lead.T_base_cam, calibration
        )
        verdict = verification.verify(
            Candidate(T_map_base, covariance, problem.prior),
            Witness(problem, alignment, self.aligner(config)),
            self.verification,
            config.acceptance,
        )
        if verdict.evidence is not None:
            _, covariance = verification.base_pose_and_covariance(
                alignment, problem.lead.T_base_cam, calibration, verdict.evidence.sharpness
            )
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
            protection_level=protection_level(covariance, self.verification) if ok else None,
            prior=problem.prior,
            alignment=alignment,
            cameras=tuple(i.frame.camera_name for i in problem.images if i.frame.camera_name),
            keyframes=problem.keyframes,
        )


class _CannotLocalize(Exception):
    """There is nothing to align, for this reason: an expected end of `localize`."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


_STATUS_OF = {Reason.OK: Status.OK, Reason.AMBIGUOUS: Status.AMBIGUOUS}


def _with_counts(
    best: Hypothesis, problems: Sequence[AlignmentProblem], aligned: Sequence[Hypothesis]
) -> Hypothesis:
    """The hypothesis with the number of initial poses that it was the best of."""
    dropped = sum(
        each.problem.hypotheses_dropped + each.alignment.hypotheses_dropped for each in aligned
    )
    count = sum(len(problem.initial_poses.t) for problem in problems) - dropped
    counted = replace(best.alignment, hypotheses=count, hypotheses_dropped=dropped)
    return replace(best, alignment=counted)


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
    if source == retrieval.SOURCE:  # such a prior is of the image itself
        refused = estimate.rejected(Reason.AMBIGUOUS, places)
        return replace(refused, status=Status.AMBIGUOUS)
    level = estimate.protection_level
    return replace(
        estimate,
        message=f"{estimate.message}; {places}, and only the {source} prior tells them apart",
        protection_level=level and replace(level, error_m=level.error_m + ambiguity_m),
    )


def _worth_second_attempt(estimate: Estimate, config: Config) -> bool:
    """Whether another search of the prior may find what this one has not.

    A sure prior leaves nothing to search, and more of it does not tell two places apart. The rules
    of PixLoc as published have no second attempt.
    """
    if config.alignment.policy == "reference":
        return False
    drawn = estimate.alignment.hypotheses if estimate.alignment else 0
    refused = not estimate.ok and estimate.reason is not Reason.AMBIGUOUS
    return refused and 0 < config.hypotheses.second_attempt_from <= drawn


def _from_middle_level(config: Config) -> Config:
    """The configuration of a second attempt: what covers the image misleads the coarse level."""
    alignment = config.alignment.model_copy(update={"first_level": "middle"})
    hypotheses = config.hypotheses.drawn_closer()
    return config.model_copy(update={"alignment": alignment, "hypotheses": hypotheses})


def _shutter_note(frames: Sequence[Frame], config: Config) -> str:
    """What to say where a rolling shutter is configured, but not how the camera moved."""
    if not config.camera.readout_s or all(frame.camera.shutter is not None for frame in frames):
        return ""
    return "; rolling shutter not corrected: nothing tells how the camera moved"


def _wrong_size(frame: Frame) -> tuple[Reason, str] | None:
    height, width = frame.image_rgb.shape[:2]
    if (width, height) == (frame.camera.width, frame.camera.height):
        return None
    calibrated = f"{frame.camera.width}x{frame.camera.height}"
    return Reason.BAD_IMAGE, f"image is {width}x{height}, calibrated for {calibrated}"


def _failed(frame: Frame, reason: Reason, message: str, priors: Sequence[PosePrior]) -> Estimate:
    prior = priors[0] if len(priors) == 1 else None
    return Estimate(Status.FAILED, reason, message, frame.stamp_ns, frame.name, prior=prior)


def _check_same_weights(map: Map, features: FeatureExtractor) -> None:
    if map.weights_sha256 != features.sha256:
        raise MapError(
            f"the map was built with weights '{map.model_id}' ({map.weights_sha256[:12]}...), the "
            f"localizer has '{features.model_id}' ({features.sha256[:12]}...): set "
            f"features.weights={map.model_id} or build the map again"
        )
