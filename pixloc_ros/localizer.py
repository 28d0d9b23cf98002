"""Where is this frame on the map? The whole story, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from pixloc_ros import acceptance
from pixloc_ros.alignment import aligner
from pixloc_ros.alignment.gpu import aligner_for
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.store import Map
from pixloc_ros.maps.view import MapView
from pixloc_ros.results import Alignment, Estimate, Frame, PosePrior, Reason, Status
from pixloc_ros.search import Look, Search, Seen
from pixloc_ros.stopwatch import Stopwatch


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
            config.features.max_side_px,
            config.features.precision,
        )
        _check_same_weights(self.map, self.features)
        self.search = Search(self.map, config)
        self.calibration = acceptance.calibration_of(self.map.metadata, config.covariance)
        self.aligner = aligner_for(self.features.damping, config.alignment, config.hypotheses)

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
            seen = [Seen(frames[i], self.features.extract(frames[i].image_rgb)) for i in usable]
        with watch("starts"):
            looks = self.search.looks(seen, [views[i] for i in usable], prior)
        return self._align(frames[0], looks, watch)

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
            seen = [Seen(frame, self.features.extract(frame.image_rgb)) for frame in right]
        with watch("retrieval"):
            priors = priors or self.search.places(seen[0])
        with watch("starts"):
            looks = [look for prior in priors for look in self.search.looks_at(seen, prior)]
        if not looks:
            message = f"too few map points at {len(priors)} places that look like it"
            return _failed(frames[0], Reason.TOO_FEW_POINTS, message)
        return self._align(frames[0], looks, watch)

    def _align(self, frame: Frame, looks: list[Look], watch: Stopwatch) -> Estimate:
        with watch("scouting"):
            looks, starts = self._promising(looks), sum(len(look.starts.t) for look in looks)
        with watch("alignment"):
            found = [self.aligner.align(look.sights, look.starts) for look in looks]
        with watch("second look"):
            look, alignment = self._best_of(looks, found)
            alignment = replace(alignment, hypotheses=starts - alignment.hypotheses_dropped)
        return self._estimate(frame, look, alignment, watch)

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

    def _promising(self, looks: list[Look]) -> list[Look]:
        """The looks worth aligning in full: the best one of every prior, then the next best."""
        if len(looks) <= self.config.hypotheses.keep_looks:
            return looks
        scouted = [self.aligner.scout(look.sights, look.starts) for look in looks]
        order = np.argsort([cost for _, cost in scouted], kind="stable").tolist()
        leaders = {id(looks[i].prior): i for i in reversed(order)}.values()
        others = [i for i in order if i not in leaders]
        kept = [*leaders, *others][: max(self.config.hypotheses.keep_looks, len(leaders))]
        return [replace(looks[i], starts=scouted[i][0]) for i in kept]

    def _best_of(self, looks: list[Look], found: list[Alignment]) -> tuple[Look, Alignment]:
        """The look that explains the images best, and its end.

        Those that are about as good look again before they are compared: from two views of one
        place they may have come to poses that differ by what the views could not tell.
        """
        least = min(alignment.cost for alignment in found)
        close = [a.cost <= least + self.config.acceptance.ambiguity_margin for a in found]
        others = [a for a, is_close in zip(found, close, strict=True) if not is_close]
        ends = []
        for i in np.flatnonzero(close):
            _, alignment = self.aligner.winner([found[i], *others])
            ends.append(self._look_again(looks[i], alignment))
        index, best = self.aligner.winner([alignment for _, alignment in ends])
        look = ends[index][0]
        return look, replace(
            best,
            T_map_cam_prior=look.prior.T_map_base @ look.lead.T_base_cam,
            hypotheses_dropped=sum(alignment.hypotheses_dropped for alignment in found),
        )

    def _worth_another_look(self, look: Look, alignment: Alignment) -> list[Seen]:
        """The cameras to look through again, from the pose found; none if there is no reason to.

        The views, chosen at the prior, may not be the best ones for what was found; and a camera
        that does not agree with the others, covered or frozen, is better left out.
        """
        T_prior, T_found = alignment.T_map_cam_prior, alignment.T_map_cam
        if not np.isfinite(alignment.cost):
            return []
        least = self.config.acceptance.min_camera_share
        agree = np.array(alignment.inlier_share_per_camera) >= least
        limits = self.config.view
        moved = (
            se3.distance_m(T_prior, T_found) > limits.renew_m
            or se3.angle_deg(T_prior, T_found) > limits.renew_deg
        )
        if agree.all() or not agree.any():
            return list(look.seen) if moved else []
        return [seen for seen, good in zip(look.seen, agree, strict=True) if good]

    def _look_again(self, first_look: Look, first: Alignment) -> tuple[Look, Alignment]:
        """Align once more where it is worth it, from the pose found, with what suits it."""
        T_map_cam_prior = first_look.prior.T_map_base @ first_look.lead.T_base_cam
        first = replace(first, T_map_cam_prior=T_map_cam_prior)
        seen = self._worth_another_look(first_look, first)
        T_map_base = first.T_map_cam @ se3.inverse(first_look.lead.T_base_cam)
        look = self.search.look(seen, T_map_base, first_look.prior) if seen else None
        if look is None:  # no need, or a wrong pose that ends off the map
            return first_look, first
        second = self.aligner.align(look.sights, look.starts)
        T_map_cam_prior = look.prior.T_map_base @ look.lead.T_base_cam
        return look, aligner.continued(first, second, look.sights, T_map_cam_prior)

    def _estimate(
        self, frame: Frame, look: Look, alignment: Alignment, watch: Stopwatch
    ) -> Estimate:
        T_map_base, covariance = acceptance.base_pose_and_covariance(
            alignment, look.lead.T_base_cam, self.calibration
        )
        reason, message = acceptance.judge(
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
