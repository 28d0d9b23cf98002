"""Localize one frame on the map: the whole algorithm, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pixloc_ros.alignment.coarse_to_fine import Aligner
from pixloc_ros.alignment.cuda.fused_aligner import fused_aligner
from pixloc_ros.alignment.frame_checks import (
    CannotLocalize,
    alignment_problems,
    failed,
    given_frames,
    given_priors,
    usable_frames,
)
from pixloc_ros.alignment.problems import ImageFeatures, ViewSelector
from pixloc_ros.alignment.selection import HypothesisSelector, with_hypothesis_counts
from pixloc_ros.alignment.verification import Verifier
from pixloc_ros.alignment.wrong_probability import model_for
from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.common.threads import one_thread
from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.global_prior import GlobalPrior, MapRetrieval
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason


class Localizer:
    """Aligns frames with a preloaded map, starting from a prior.

    With a ConfigHolder, a changed configuration takes effect with the next frame; the map, the
    network and the device stay as they were at the start. `global_prior` proposes poses for frames
    without a prior; if it proposes none, the frame is searched for on the whole map.

    Raises MapError if the map was built with other network weights, ConfigError for anything but a
    configuration.
    """

    def __init__(
        self,
        config: Config | ConfigHolder,
        map: Map | None = None,
        global_prior: GlobalPrior | None = None,
    ):
        if not isinstance(config, Config | ConfigHolder):
            kind = type(config).__name__
            raise ConfigError(f"a localizer is made of a Config(map=...), not of a {kind}")
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
        self.verification_model = model_for(
            config.features.weights, self.features.sha256, config.alignment.policy
        )

    @property
    def config(self) -> Config:
        """The current configuration."""
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
        """Find the vehicle's pose at the frame's stamp, or the reason why there is none.

        prior: if there are several, the best one wins and the others become its alternatives. If
        there is none, image retrieval proposes places on the map.
        other_cameras: frames that the vehicle's other cameras took at the same time; all are
        aligned for one pose. Unusable cameras are left out.

        An image that cannot be used gives an estimate without a pose. Raises DataError for
        arguments of other types, for a prior or a mounting that is not a pose, and for a matrix
        that is not a covariance.
        """
        frames = [*given_frames(frame), *given_frames(other_cameras)]
        given = [] if prior is None else given_priors(prior)
        config, watch = self.config, Stopwatch()  # one configuration for all of a frame
        views = ViewSelector(self.map, config)
        try:
            with watch("views"):  # first: frames that are off the map need no network
                self._require_prior(given)
                frames = usable_frames(frames, given, views)
            with watch("features"):
                images = [ImageFeatures(f, self.features.extract(f.image_rgb)) for f in frames]
            with watch("retrieval"):
                priors = given or self._propose(images[0], config)
            estimate = self._align(images, priors, views.with_images(images, config), watch)
            if _worth_second_attempt(estimate, config):
                from_middle = views.with_images(images, _from_middle_level(config))
                second = self._align(images, priors, from_middle, watch)
                estimate = second if second.ok else estimate
        except CannotLocalize as failure:
            return failed(frame, failure.reason, failure.message, given)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            return failed(frame, Reason.OUT_OF_MEMORY, str(error).partition("\n")[0], given)
        message = estimate.message + _shutter_note(frames, config)
        return replace(
            estimate,
            message=message,
            stamp_ns=frame.stamp_ns,
            name=frame.name,
            timing_ms=watch.timing_ms,
        )

    @one_thread()
    def _align(
        self,
        images: Sequence[ImageFeatures],
        priors: Sequence[PosePrior],
        views: ViewSelector,
        watch: Stopwatch,
    ) -> Estimate:
        """Find the pose that explains the images best, and verify it."""
        config = views.config
        selector = HypothesisSelector(views, self.aligner(config), config)
        with watch("initial_poses"):
            problems = alignment_problems(images, priors, views)
        with watch("coarse_screening"):
            promising = selector.screen(problems)
        with watch("alignment"):
            hypotheses = [selector.align(problem) for problem in promising]
        with watch("re_alignment"):
            best = selector.select(hypotheses)
        with watch("alternative_poses"):
            best = selector.compare_with_alternatives(best)
        best = with_hypothesis_counts(best, problems, hypotheses)
        provisional = any(problem.provisional for problem in problems)
        verifier = Verifier(self.map.metadata, self.verification_model, selector, provisional)
        with watch("verification"):
            estimate = verifier.verify(best)
        with watch("refinement"):
            estimate = verifier.refine(estimate, best)
        with watch("beyond_prior"):
            return verifier.compare_beyond_prior(estimate, best)

    def aligner(self, config: Config) -> Aligner:
        """Return the aligner for a configuration, on this localizer's device."""
        return Aligner(self.features.damping, config.alignment, config.hypotheses, self.kernels)

    def _require_prior(self, priors: Sequence[PosePrior]) -> None:
        """Raise CannotLocalize if there is no prior and no way to propose one."""
        if priors or self.global_prior or self.can_search:
            return
        message = "no odometry, GNSS or initial pose yet"
        if self.map.keyframe_descriptors is None:
            message += "; the map has no descriptors to search by: build it again"
        else:
            message += "; searching the map is switched off (retrieval.enabled)"
        raise CannotLocalize(Reason.NO_PRIOR, message)

    def _propose(self, image: ImageFeatures, config: Config) -> list[PosePrior]:
        """Propose poses for a frame without a prior: the global prior's, or else retrieval's."""
        if self.global_prior is not None:
            proposed = self.global_prior.propose(image.frame, image.pyramid)
            if proposed := given_priors(proposed):
                return proposed
            if not self.can_search:
                raise CannotLocalize(Reason.NO_PRIOR, "the global prior does not know this frame")
        return MapRetrieval(self.map, config.retrieval).propose(image.frame, image.pyramid)


def _worth_second_attempt(estimate: Estimate, config: Config) -> bool:
    """Return whether a second search of the prior may find what the first has missed.

    A narrow prior leaves nothing to search, and a longer search does not tell two places apart.
    PixLoc as published has no second attempt.
    """
    if config.alignment.policy == "reference":
        return False
    needed = estimate.alignment.hypotheses_needed if estimate.alignment else 0
    refused = not estimate.ok and estimate.reason is not Reason.AMBIGUOUS
    return refused and 0 < config.hypotheses.second_attempt_from <= needed


def _from_middle_level(config: Config) -> Config:
    """Return the configuration of a second attempt.

    It begins at the middle level: what covers the image misleads the coarse one.
    """
    alignment = config.alignment.model_copy(update={"first_level": "middle"})
    hypotheses = config.hypotheses.for_middle_level()
    return config.model_copy(update={"alignment": alignment, "hypotheses": hypotheses})


def _shutter_note(frames: Sequence[Frame], config: Config) -> str:
    """Return a warning where a rolling shutter is configured but the camera's motion is unknown."""
    if not config.camera.readout_s or all(frame.camera.shutter is not None for frame in frames):
        return ""
    return "; rolling shutter not corrected: the camera's motion is unknown"


def _check_same_weights(map: Map, features: FeatureExtractor) -> None:
    if map.weights_sha256 != features.sha256:
        raise MapError(
            f"the map was built with weights '{map.model_id}' ({map.weights_sha256[:12]}...), the "
            f"localizer has '{features.model_id}' ({features.sha256[:12]}...): set "
            f"features.weights={map.model_id} or build the map again"
        )
