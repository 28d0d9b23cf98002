"""The way from wrong starts to the pose, level by level: where it leads, and from how far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Stage
from pixloc_ros.alignment.levenberg_marquardt import minimize
from pixloc_ros.alignment.problems import local_poses
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.localizer import Localizer
from pixloc_ros.types import Frame, Matrix

CHAIN = "coarse to fine"
AXES = ("forward", "lateral", "yaw")


@dataclass(frozen=True, slots=True)
class Descent:
    """One frame before the map, with the view of its true pose, so that only starts differ."""

    localizer: Localizer
    sight: CameraObservation
    truth: Pose  # (1,) T_cam_local
    T_base_cam: Matrix

    @classmethod
    @torch.inference_mode()
    def of(cls, localizer: Localizer, frame: Frame, T_map_base: Matrix) -> Descent:
        view = localizer.search.view(frame, T_map_base)
        pyramid = localizer.features.extract(frame.image_rgb)
        camera = frame.camera.to(device=view.points.device, dtype=torch.float32)
        truth = local_poses((T_map_base @ frame.T_base_cam)[None], view)
        return cls(localizer, CameraObservation(pyramid, camera, view), truth, frame.T_base_cam)

    def starts(self, offsets: NDArray[np.float64]) -> Pose:
        """T_cam_local (K,) of the true pose moved by T_base_moved (K, 4, 4)."""
        T_cam_base = se3.inverse(self.T_base_cam)
        moved = torch.from_numpy(T_cam_base @ se3.inverse(offsets) @ self.T_base_cam)
        return Pose.from_matrix(moved).to(self.truth.t) @ self.truth

    @torch.inference_mode()
    def refine(self, level: int, starts: Pose) -> Pose:
        """Where the starts (K,) end on one level, 0 the coarsest, each for itself."""
        aligner = self.localizer.contest.aligner
        stage = Stage(level, aligner.config.iterations[level], keep=len(starts.t))
        system = aligner.system(self.sight, stage)
        damping = aligner.damping[level]
        return minimize(system, starts, damping, stage.iterations, aligner.config).T_cam_local

    def way(self, starts: Pose) -> list[Pose]:
        """The starts (K,), and where they are after each level, coarse to fine."""
        poses = [starts]
        for level in range(len(self.sight.pyramid.levels)):
            poses.append(self.refine(level, poses[-1]))
        return poses

    def pixels(self, T_cam_local: Pose) -> Tensor:
        """Projections (K, N, 2) in pixels of the image, NaN behind the camera."""
        points_cam = T_cam_local.transform(self.sight.view.points)
        pixels, _ = self.sight.camera.project(points_cam)
        return torch.where(points_cam[..., 2:] > 0, pixels, torch.nan)

    def error_px(self, T_cam_local: Pose) -> NDArray[np.float64]:
        """Mean distance (K,) of the points from where the true pose shows them."""
        true = self.pixels(self.truth)
        in_image = self.sight.camera.in_image(true)
        distance = (self.pixels(T_cam_local) - true).norm(dim=-1)
        return distance.where(in_image, torch.nan).nanmean(-1).double().cpu().numpy()


def offsets(axis: str, sizes: Sequence[float]) -> NDArray[np.float64]:
    """T_base_moved (K, 4, 4): metres forward or to the left, or degrees about the vertical."""
    T = np.tile(np.eye(4), (len(sizes), 1, 1))
    if axis == "yaw":
        angle = np.deg2rad(sizes)
        T[:, 0, 0] = T[:, 1, 1] = np.cos(angle)
        T[:, 1, 0], T[:, 0, 1] = np.sin(angle), -np.sin(angle)
    else:
        T[:, AXES.index(axis), 3] = sizes
    return T


def basin(
    descents: Iterable[Descent], sizes: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Per axis of `sizes`, per level and for all in a row: share of frames that arrive.

    A level has arrived where the points are within one pixel of its own map from the truth, on
    average; from there the next level goes on.
    """
    arrived: dict[str, dict[str, list[NDArray[np.bool_]]]] = {axis: {} for axis in sizes}
    for descent in descents:
        for axis, values in sizes.items():
            for name, near in _arrivals(descent, descent.starts(offsets(axis, values))):
                arrived[axis].setdefault(name, []).append(near)
    return {
        axis: {name: np.mean(near, axis=0) for name, near in by_level.items()}
        for axis, by_level in arrived.items()
    }


def _arrivals(descent: Descent, starts: Pose) -> Iterable[tuple[str, NDArray[np.bool_]]]:
    levels = descent.sight.pyramid.levels
    pixel_px = [level.stride / descent.sight.pyramid.scale[0] for level in levels]
    for i, level in enumerate(levels):
        end = descent.refine(i, starts)
        yield f"stride {level.stride}", descent.error_px(end) < pixel_px[i]
    yield CHAIN, descent.error_px(descent.way(starts)[-1]) < pixel_px[-1]
