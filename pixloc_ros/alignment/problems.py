"""Where to look, and from where: views of the map, and the starts aligned against each.

A sure prior gets one view per camera, chosen at the prior. Points chosen 10 m behind the vehicle
are mostly out of its sight, so a vague prior gets several, at keyframes along the stretch of map
it allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.alignment.initial_poses import draw_starts
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.config import Config
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import cam_covariance_from_base
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import MapView, select_view
from pixloc_ros.types import Frame, Matrix, PosePrior


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """A frame, and what the network made of it."""

    frame: Frame
    pyramid: FeaturePyramid


@dataclass(frozen=True, slots=True)
class AlignmentProblem:
    """Cameras with their views of the map, and the starts to align against them.

    The first camera is the lead; starts (K,) are its T_cam_local and come from the prior.
    """

    seen: tuple[ImageFeatures, ...]
    sights: tuple[CameraObservation, ...]
    starts: Pose
    prior: PosePrior

    @property
    def lead(self) -> Frame:
        return self.seen[0].frame

    @property
    def keyframes(self) -> tuple[str, ...]:
        """Whose points were considered, each once, those of the lead first."""
        return tuple(dict.fromkeys(name for s in self.sights for name in s.view.keyframes))


@dataclass(frozen=True, slots=True)
class ViewSelector:
    """Chooses views and starts on one map."""

    map: Map
    config: Config

    def view(self, frame: Frame, T_map_base: Matrix) -> MapView:
        """The view of the map that a frame has where the vehicle is at a pose (4, 4)."""
        T_map_cam = T_map_base @ frame.T_base_cam
        return select_view(self.map, T_map_cam, frame.camera, self.config.view, self.config.device)

    def places(self, seen: ImageFeatures) -> list[PosePrior]:
        """Priors where keyframes look like a frame, the likeliest first."""
        options = self.config.retrieval
        descriptor = retrieval.describe(seen.pyramid)
        ranking = retrieval.most_alike(
            self.map.keyframe_descriptors, descriptor, options.candidates
        )
        frame = seen.frame
        return retrieval.places(self.map, ranking, frame.T_base_cam, frame.stamp_ns, options)

    def looks_at(self, seen: Sequence[ImageFeatures], prior: PosePrior) -> list[AlignmentProblem]:
        """As `looks`; none where the lead sees too little of the map."""
        first = self.look(seen, prior.T_map_base, prior)
        if first is None or first.lead is not seen[0].frame:
            return []
        return self.looks(first.seen, [sight.view for sight in first.sights], prior)

    def looks(
        self, seen: Sequence[ImageFeatures], views: Sequence[MapView], prior: PosePrior
    ) -> list[AlignmentProblem]:
        """Looks whose starts cover the prior; the prior itself starts in the first one.

        views: of all cameras, at the prior.
        """
        first = _look(seen, views, self._starts(seen[0], views[0], prior), prior)
        T_map_cam = prior.T_map_base @ first.lead.T_base_cam
        anchors = self._anchors(T_map_cam, prior)
        if not anchors:
            return [first]
        T_map_starts = se3.inverse(first.starts.matrix().double().cpu().numpy())
        T_map_starts[:, :3, 3] += views[0].origin
        places = np.stack([T[:3, 3] for T in (T_map_cam, *anchors)])
        owner = np.linalg.norm(T_map_starts[:, None, :3, 3] - places, axis=-1).argmin(1)
        owner[0] = 0
        looks = [_look(seen, views, local_poses(T_map_starts[owner == 0], views[0]), prior)]
        for i in np.unique(owner[owner > 0]):
            T_map_base = anchors[i - 1] @ se3.inverse(first.lead.T_base_cam)
            look = self.look(seen, T_map_base, prior, T_map_starts[owner == i])
            if look is not None:
                looks.append(look)
        return looks

    def look(
        self,
        seen: Sequence[ImageFeatures],
        T_map_base: Matrix,
        prior: PosePrior,
        T_map_starts: Matrix | None = None,
    ) -> AlignmentProblem | None:
        """Views from a pose of the vehicle (4, 4), and starts (K, 4, 4) of the lead: by default
        that pose. Cameras that see too little of the map there are left out; None if all do."""
        pairs = [(s, self.view(s.frame, T_map_base)) for s in seen]
        pairs = [(s, view) for s, view in pairs if len(view) >= self.config.view.min_points]
        if not pairs or (T_map_starts is not None and pairs[0][0] is not seen[0]):
            return None
        some, views = zip(*pairs, strict=True)
        if T_map_starts is None:
            T_map_starts = (T_map_base @ some[0].frame.T_base_cam)[None]
        return _look(some, views, local_poses(T_map_starts, views[0]), prior)

    def beside(self, look: AlignmentProblem, T_map_base: Matrix) -> list[AlignmentProblem]:
        """Looks from poses ahead of and behind one that was found: as far as its prior allows,
        and a step more. None for a prior that allows no step.

        Streets repeat along themselves: what fits one house may fit the next one as well, which
        the starts, drawn closer around the prior, need not have tried.
        """
        options, limit = self.config.hypotheses, self.config.acceptance.max_sigma_from_prior
        ahead, prior = T_map_base[:3, 0], look.prior
        reach_m = limit * float(np.sqrt(ahead @ prior.covariance[:3, :3] @ ahead))
        done_m = float(ahead @ (T_map_base[:3, 3] - prior.T_map_base[:3, 3]))
        looks: list[AlignmentProblem] = []
        if reach_m < options.alternative_step_m:
            return looks
        for index in range(options.max_alternatives):
            step_m = options.alternative_step_m * (index // 2 + 1) * (-1) ** index
            if abs(done_m + step_m) > reach_m + options.alternative_step_m:
                continue
            T_map_rival = T_map_base @ se3.make(np.eye(3), [step_m, 0.0, 0.0])
            rival = self.look(look.seen, T_map_rival, prior)
            if rival is not None and rival.lead is look.lead:
                looks.append(rival)
        return looks

    def _starts(self, seen: ImageFeatures, view: MapView, prior: PosePrior) -> Pose:
        T_base_cam = seen.frame.T_base_cam
        pose = local_poses((prior.T_map_base @ T_base_cam)[None], view)[0]
        covariance = cam_covariance_from_base(prior.covariance, prior.T_map_base, T_base_cam)
        camera = seen.frame.camera.to(dtype=torch.float32, device=view.points.device)
        seen_by_network = camera.scale(seen.pyramid.scale)
        return draw_starts(pose, covariance, view.points, seen_by_network, self.config.hypotheses)

    def _anchors(self, T_map_cam: Matrix, prior: PosePrior) -> list[Matrix]:
        """Camera poses at keyframes inside the prior's ellipsoid, nearest first, well apart.

        They keep the prior's rotation: it, not the keyframe's, tells what is in the image.
        """
        spacing_m, limit = self.config.view.extra_view_spacing_m, self.config.view.max_extra_views
        covariance = prior.covariance[:3, :3]
        sigmas = self.config.hypotheses.coverage_sigma
        if sigmas * np.sqrt(np.linalg.eigvalsh(covariance)[-1]) < spacing_m:
            return []
        # A keyframe may lie beside the ellipsoid by what a view serves around it.
        widened = covariance + np.eye(3) * (spacing_m / sigmas) ** 2
        reach_m = sigmas * np.sqrt(np.linalg.eigvalsh(widened)[-1])
        near, _ = self.map.keyframes_within(T_map_cam[:3, 3], reach_m)
        places = self.map.keyframe_T_map_cam[near, :3, 3]
        offsets = places - T_map_cam[:3, 3]
        distance = np.sqrt((offsets * np.linalg.solve(widened, offsets.T).T).sum(1))
        chosen: list[Matrix] = []
        for i in np.argsort(distance):
            if distance[i] > sigmas or len(chosen) == limit:
                break
            anchor = se3.make(T_map_cam[:3, :3], places[i])
            if all(se3.distance_m(anchor, other) > spacing_m for other in chosen):
                chosen.append(anchor)
        return chosen


def _look(
    seen: Sequence[ImageFeatures], views: Sequence[MapView], starts: Pose, prior: PosePrior
) -> AlignmentProblem:
    T_base_lead = seen[0].frame.T_base_cam
    sights = [
        CameraObservation(
            s.pyramid,
            s.frame.camera.to(dtype=torch.float32),  # on the CPU: reading it must not wait
            view,
            se3.inverse(s.frame.T_base_cam) @ T_base_lead,
        )
        for s, view in zip(seen, views, strict=True)
    ]
    return AlignmentProblem(tuple(seen), tuple(sights), starts, prior)


def local_poses(T_map_cam: NDArray[np.float64], view: MapView) -> Pose:
    """T_cam_local (K,) of camera poses (K, 4, 4), in the precision and on the device of a view."""
    T_local_cam = T_map_cam.copy()
    T_local_cam[:, :3, 3] -= view.origin
    return Pose.from_matrix(torch.from_numpy(se3.inverse(T_local_cam)).to(view.points))
