"""Where to look, and from where: views of the map, and the starts aligned against each.

A sure prior gets one view, chosen at the prior. Points chosen 10 m behind the vehicle are mostly
out of its sight, so a vague prior gets several, at keyframes along the stretch of map it allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.alignment.hypotheses import draw_starts
from pixloc_ros.config import Config
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import cam_covariance_from_base
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps.store import Map
from pixloc_ros.maps.view import MapView
from pixloc_ros.results import Frame, Matrix, PosePrior


@dataclass(frozen=True, slots=True)
class Look:
    """One view of the map and the starts (K,) of T_cam_local to align against it."""

    view: MapView
    starts: Pose


@dataclass(frozen=True, slots=True)
class Search:
    """Chooses views and starts on one map."""

    map: Map
    config: Config

    def view(self, frame: Frame, T_map_cam: Matrix) -> MapView:
        """The view of the map from a camera pose (4, 4)."""
        return self.map.view(T_map_cam, frame.camera, self.config.view, self.config.device)

    def looks(
        self, frame: Frame, prior: PosePrior, view: MapView, pyramid: FeaturePyramid
    ) -> list[Look]:
        """The first look is that of the view at the prior, given here; the prior starts in it."""
        T_map_cam = prior.T_map_base @ frame.T_base_cam
        starts = self._starts(frame, prior, view, pyramid)
        anchors = self._anchors(T_map_cam, prior)
        if not anchors:
            return [Look(view, starts)]
        T_map_starts = se3.inverse(starts.matrix().double().cpu().numpy())
        T_map_starts[:, :3, 3] += view.origin
        places = np.stack([T[:3, 3] for T in (T_map_cam, *anchors)])
        owner = np.linalg.norm(T_map_starts[:, None, :3, 3] - places, axis=-1).argmin(1)
        owner[0] = 0
        looks = [Look(view, local_poses(T_map_starts[owner == 0], view))]
        for i in np.unique(owner[owner > 0]):
            view = self.view(frame, anchors[i - 1])
            if len(view) >= self.config.view.min_points:
                looks.append(Look(view, local_poses(T_map_starts[owner == i], view)))
        return looks

    def _starts(
        self, frame: Frame, prior: PosePrior, view: MapView, pyramid: FeaturePyramid
    ) -> Pose:
        pose = local_poses((prior.T_map_base @ frame.T_base_cam)[None], view)[0]
        covariance = cam_covariance_from_base(prior.covariance, prior.T_map_base, frame.T_base_cam)
        camera = frame.camera.to(dtype=torch.float32, device=view.points.device)
        seen_by_network = camera.scale(pyramid.scale)
        return draw_starts(pose, covariance, view.points, seen_by_network, self.config.hypotheses)

    def _anchors(self, T_map_cam: Matrix, prior: PosePrior) -> list[Matrix]:
        """Camera poses at keyframes inside the prior's ellipsoid, nearest first, well apart.

        They keep the prior's rotation: it, not the keyframe's, tells what is in the image.
        """
        spacing_m, limit = self.config.view.anchor_spacing_m, self.config.view.max_anchors
        covariance = prior.covariance[:3, :3]
        sigmas = self.config.hypotheses.coverage_sigma
        if sigmas * np.sqrt(np.linalg.eigvalsh(covariance)[-1]) < spacing_m:
            return []
        offsets = self.map.keyframe_T_map_cam[:, :3, 3] - T_map_cam[:3, 3]
        # A keyframe may lie beside the ellipsoid by what a view serves around it.
        widened = covariance + np.eye(3) * (spacing_m / sigmas) ** 2
        distance = np.sqrt((offsets * np.linalg.solve(widened, offsets.T).T).sum(1))
        chosen: list[Matrix] = []
        for i in np.argsort(distance):
            if distance[i] > sigmas or len(chosen) == limit:
                break
            anchor = se3.make(T_map_cam[:3, :3], self.map.keyframe_T_map_cam[i, :3, 3])
            if all(se3.distance_m(anchor, other) > spacing_m for other in chosen):
                chosen.append(anchor)
        return chosen


def local_poses(T_map_cam: NDArray[np.float64], view: MapView) -> Pose:
    """T_cam_local (K,) of camera poses (K, 4, 4), in the precision and on the device of a view."""
    T_local_cam = T_map_cam.copy()
    T_local_cam[:, :3, 3] -= view.origin
    return Pose.from_matrix(torch.from_numpy(se3.inverse(T_local_cam)).to(view.points))
