"""Where is this frame on the map? The whole story, in order."""

from __future__ import annotations

import numpy as np
import torch

from pixloc_ros import acceptance
from pixloc_ros.alignment import aligner
from pixloc_ros.alignment.gpu import aligner_for
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.store import Map
from pixloc_ros.maps.view import MapView
from pixloc_ros.results import Alignment, Estimate, Frame, PosePrior, Reason, Status
from pixloc_ros.search import Look, Search, local_poses
from pixloc_ros.stopwatch import Stopwatch


class Localizer:
    """Aligns frames to a preloaded map, starting from a prior.

    Raises MapError when the map was built with other network weights.
    """

    def __init__(self, config: Config, map: Map | None = None):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.map = Map.load(config.map) if map is None else map
        self.features = FeatureExtractor(
            config.features.weights, config.device, config.features.max_side_px
        )
        _check_same_weights(self.map, self.features)
        self.search = Search(self.map, config)
        self.aligner = aligner_for(self.features.damping, config.alignment, config.hypotheses)

    def localize(self, frame: Frame, prior: PosePrior | None) -> Estimate:
        """Pose of the vehicle at the frame's stamp, or a status and the reason why not."""
        try:
            return self._localize(frame, prior)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            return _failed(frame, Reason.OUT_OF_MEMORY, str(error).partition("\n")[0], prior)

    @torch.inference_mode()
    def _localize(self, frame: Frame, prior: PosePrior | None) -> Estimate:
        watch = Stopwatch()
        if prior is None:
            return _failed(frame, Reason.NO_PRIOR, "no odometry, GNSS or initial pose yet")
        with watch("view"):
            view = self.search.view(frame, prior.T_map_base @ frame.T_base_cam)
        if problem := self._unusable(frame, view):
            return _failed(frame, *problem, prior)
        with watch("features"):
            pyramid = self.features.extract(frame.image_rgb)
        with watch("starts"):
            looks = self.search.looks(frame, prior, view, pyramid)
        with watch("alignment"):
            view, alignment = self._best_of(looks, frame, pyramid)
        if self._moved_far(alignment):
            with watch("second look"):
                view, alignment = self._look_again(frame, pyramid, view, alignment)
        return self._estimate(frame, prior, view, alignment, watch)

    def _unusable(self, frame: Frame, view: MapView) -> tuple[Reason, str] | None:
        height, width = frame.image_rgb.shape[:2]
        if (width, height) != (frame.camera.width, frame.camera.height):
            calibrated = f"{frame.camera.width}x{frame.camera.height}"
            return Reason.BAD_IMAGE, f"image is {width}x{height}, calibrated for {calibrated}"
        if view.nearest_m > self.config.view.max_distance_m:
            return Reason.OUT_OF_MAP, f"nearest keyframe is {view.nearest_m:.0f} m away"
        if len(view) < self.config.view.min_points:
            return Reason.TOO_FEW_POINTS, f"only {len(view)} map points in view"
        return None

    def _camera(self, frame: Frame) -> Camera:
        return frame.camera.to(dtype=torch.float32)  # on the CPU: reading it must not wait

    def _best_of(
        self, looks: list[Look], frame: Frame, pyramid: FeaturePyramid
    ) -> tuple[MapView, Alignment]:
        camera = self._camera(frame)
        found = [self.aligner.align(pyramid, camera, look.view, look.starts) for look in looks]
        index, best = self.aligner.winner(found)
        return looks[index].view, best

    def _moved_far(self, alignment: Alignment) -> bool:
        """Whether the view, chosen at the prior, may not be the best one for what was found."""
        T_prior, T_found = alignment.T_map_cam_prior, alignment.T_map_cam
        limits = self.config.view
        return np.isfinite(alignment.cost) and (
            se3.distance_m(T_prior, T_found) > limits.renew_m
            or se3.angle_deg(T_prior, T_found) > limits.renew_deg
        )

    def _look_again(
        self, frame: Frame, pyramid: FeaturePyramid, first_view: MapView, first: Alignment
    ) -> tuple[MapView, Alignment]:
        """Align once more, from the pose found, with the points and keyframes that suit it."""
        view = self.search.view(frame, first.T_map_cam)
        if len(view) < self.config.view.min_points:  # a wrong pose may end off the map
            return first_view, first
        start = local_poses(first.T_map_cam[None], view)
        second = self.aligner.align(pyramid, self._camera(frame), view, start)
        return view, aligner.continued(first, second, frame.camera)

    def _estimate(
        self, frame: Frame, prior: PosePrior, view: MapView, alignment: Alignment, watch: Stopwatch
    ) -> Estimate:
        T_map_base, covariance = acceptance.base_pose_and_covariance(
            alignment, frame.T_base_cam, self.config.covariance
        )
        reason, message = acceptance.judge(
            alignment, T_map_base, covariance, prior, self.config.acceptance
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
            prior=prior,
            alignment=alignment,
            keyframes=view.keyframes,
            timing_ms=watch.timing_ms,
        )


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
