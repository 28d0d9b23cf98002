"""Where is this frame on the map? The whole story, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pixloc_ros.alignment import verification
from pixloc_ros.alignment.cuda.fused_aligner import aligner_for
from pixloc_ros.alignment.problems import AlignmentProblem, ImageFeatures, ViewSelector
from pixloc_ros.alignment.selection import HypothesisSelector
from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import MapView
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status


class Localizer:
    """Aligns frames to a preloaded map, starting from a prior.

    Raises MapError when the map was built with other network weights.
    """

    def __init__(self, config: Config, map: Map | None = None):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.map = map or Map.load(config.map, tiles=config.tiles, device=config.device)
        self.features = FeatureExtractor(
            config.features.weights,
            config.device,
            config.features.max_side_px or self.map.metadata.max_side_px,
            config.features.precision,
        )
        _check_same_weights(self.map, self.features)
        self.search = ViewSelector(self.map, config)
        self.calibration = verification.calibration_of(self.map.metadata, config.covariance)
        aligner = aligner_for(self.features.damping, config.alignment, config.hypotheses)
        self.contest = HypothesisSelector(self.search, aligner, config)

    @property
    def can_search(self) -> bool:
        """Whether a frame without any prior can be looked for on the whole map."""
        return self.config.retrieval.enabled and self.map.keyframe_descriptors is not None

    def localize(
        self,
        frame: Frame,
        prior: PosePrior | Sequence[PosePrior] | None = None,
        beside: Sequence[Frame] = (),
    ) -> Estimate:
        """Pose of the vehicle at the frame's stamp, or a status and the reason why not.

        prior: of several, the best one wins and the others are its rivals. Without any, they are
        the places on the map that look like the frame.
        beside: what other cameras of the vehicle saw at that time, for one pose of all. Cameras
        that are of no use are left out.
        """
        frames = (frame, *beside)
        try:
            if isinstance(prior, PosePrior):
                return self._localize(frames, prior)
            return self._localize_anywhere(frames, prior)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            one = prior if isinstance(prior, PosePrior) else None
            return _failed(frame, Reason.OUT_OF_MEMORY, str(error).partition("\n")[0], one)

    @torch.inference_mode()
    def _localize(self, frames: Sequence[Frame], prior: PosePrior) -> Estimate:
        watch = Stopwatch()
        with watch("view"):
            views = [self.search.view(frame, prior.T_map_base) for frame in frames]
        problems = [self._unusable(frame, view) for frame, view in zip(frames, views, strict=True)]
        if problems[0] and all(problems):
            return _failed(frames[0], *problems[0], prior)
        usable = [i for i, problem in enumerate(problems) if not problem]
        with watch("features"):
            seen = [
                ImageFeatures(frames[i], self.features.extract(frames[i].image_rgb)) for i in usable
            ]
        with watch("starts"):
            looks = self.search.looks(seen, [views[i] for i in usable], prior)
        return self._estimate(frames[0], looks, watch)

    @torch.inference_mode()
    def _localize_anywhere(
        self, frames: Sequence[Frame], priors: Sequence[PosePrior] | None
    ) -> Estimate:
        """As above, with the network's pass first: its descriptor tells the places to look at."""
        watch = Stopwatch()
        if not priors and not self.can_search:
            return _failed(frames[0], Reason.NO_PRIOR, self._why_no_search())
        if problem := _wrong_size(frames[0]):
            return _failed(frames[0], *problem)
        with watch("features"):
            right = [frame for frame in frames if not _wrong_size(frame)]
            seen = [ImageFeatures(frame, self.features.extract(frame.image_rgb)) for frame in right]
        with watch("retrieval"):
            priors = priors or self.search.places(seen[0])
        with watch("starts"):
            looks = [look for prior in priors for look in self.search.looks_at(seen, prior)]
        if not looks:
            message = f"too few map points at {len(priors)} places that look like it"
            return _failed(frames[0], Reason.TOO_FEW_POINTS, message)
        return self._estimate(frames[0], looks, watch)

    def _why_no_search(self) -> str:
        message = "no odometry, GNSS or initial pose yet"
        if self.map.keyframe_descriptors is None:
            return f"{message}; the map has no descriptors to search by: build it again"
        return f"{message}; searching the map is switched off (retrieval.enabled)"

    def _unusable(self, frame: Frame, view: MapView) -> tuple[Reason, str] | None:
        if problem := _wrong_size(frame):
            return problem
        if view.nearest_m > self.config.view.max_distance_m:
            return Reason.OUT_OF_MAP, f"nearest keyframe is {view.nearest_m:.0f} m away"
        if len(view) < self.config.view.min_points:
            refused = self.map.tiles.refused
            damage = f"; refused tiles of the map: {', '.join(refused)}" if refused else ""
            return Reason.TOO_FEW_POINTS, f"only {len(view)} map points in view{damage}"
        return None

    def _estimate(self, frame: Frame, looks: list[AlignmentProblem], watch: Stopwatch) -> Estimate:
        """Align, and judge what it came to."""
        look, alignment = self.contest.winner(looks, watch)
        T_map_base, covariance = verification.base_pose_and_covariance(
            alignment, look.lead.T_base_cam, self.calibration
        )
        reason, message = verification.judge(
            alignment, T_map_base, covariance, look.prior, self.config.acceptance
        )
        if alignment.hypotheses_dropped:
            message += f"; no memory for {alignment.hypotheses_dropped} more starts"
        ok = reason is Reason.OK
        return Estimate(
            status=_STATUS_OF.get(reason, Status.REJECTED),
            reason=reason,
            message=message,
            stamp_ns=frame.stamp_ns,
            name=frame.name,
            T_map_base=T_map_base if ok else None,
            covariance=covariance if ok else None,
            candidate_T_map_base=T_map_base if np.isfinite(T_map_base).all() else None,
            prior=look.prior,
            alignment=alignment,
            cameras=tuple(s.frame.camera_name for s in look.seen if s.frame.camera_name),
            keyframes=look.keyframes,
            timing_ms=watch.timing_ms,
        )


def _wrong_size(frame: Frame) -> tuple[Reason, str] | None:
    height, width = frame.image_rgb.shape[:2]
    if (width, height) == (frame.camera.width, frame.camera.height):
        return None
    calibrated = f"{frame.camera.width}x{frame.camera.height}"
    return Reason.BAD_IMAGE, f"image is {width}x{height}, calibrated for {calibrated}"


_STATUS_OF = {Reason.OK: Status.OK, Reason.AMBIGUOUS: Status.AMBIGUOUS}


def _failed(frame: Frame, reason: Reason, message: str, prior: PosePrior | None = None) -> Estimate:
    return Estimate(Status.FAILED, reason, message, frame.stamp_ns, frame.name, prior=prior)


def _check_same_weights(map: Map, features: FeatureExtractor) -> None:
    if map.weights_sha256 != features.sha256:
        raise MapError(
            f"the map was built with weights '{map.model_id}' ({map.weights_sha256[:12]}...), the "
            f"localizer has '{features.model_id}' ({features.sha256[:12]}...): set "
            f"features.weights={map.model_id} or build the map again"
        )
