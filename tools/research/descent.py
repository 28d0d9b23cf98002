"""Record the path from wrong initial poses to the right one, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Aligner, Stage
from pixloc_ros.alignment.problems import ViewSelector, local_poses
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.localizer import Localizer
from pixloc_ros.types import Frame, Matrix

CHAIN = "coarse to fine"
AXES = ("forward", "lateral", "yaw")


@dataclass(frozen=True, slots=True)
class Descent:
    """One frame with the view of its true pose, so that only the initial poses differ."""

    aligner: Aligner
    observation: CameraObservation
    truth: Pose  # (1,) T_cam_local
    T_base_cam: Matrix

    @classmethod
    @torch.inference_mode()
    def of(cls, localizer: Localizer, frame: Frame, T_map_base: Matrix) -> Descent:
        view = ViewSelector(localizer.map, localizer.config).view(frame, T_map_base)
        pyramid = localizer.features.extract(frame.image_rgb)
        camera = frame.camera.to(device=view.points.device, dtype=torch.float32)
        truth = local_poses((T_map_base @ frame.T_base_cam)[None], view)
        observation = CameraObservation(pyramid, camera, view)
        return cls(localizer.aligner(localizer.config), observation, truth, frame.T_base_cam)

    def initial_poses(self, offsets: NDArray[np.float64]) -> Pose:
        """T_cam_local (K,) of the true pose moved by T_base_moved (K, 4, 4)."""
        T_cam_base = se3.inverse(self.T_base_cam)
        moved = torch.from_numpy(T_cam_base @ se3.inverse(offsets) @ self.T_base_cam)
        return Pose.from_matrix(moved).to(self.truth.t) @ self.truth

    @torch.inference_mode()
    def record(self, initial: Pose, levels: Sequence[int]) -> list[Pose]:
        """Return the initial poses (K,), and each of them after each level."""
        stages = [Stage(level, self.aligner.policy.iterations[level], None) for level in levels]
        refined = self.aligner.refine(stages, [self.observation], initial)
        return [initial, *(ends.T_cam_local for _, ends in refined.history)]

    def way(self, initial: Pose) -> list[Pose]:
        """Return the initial poses (K,), and the poses after each level, coarse to fine."""
        return self.record(initial, range(len(self.observation.pyramid.levels)))

    def pixels(self, T_cam_local: Pose) -> Tensor:
        """Return projections (K, N, 2) in pixels of the image, NaN behind the camera."""
        points_cam = T_cam_local.transform(self.observation.view.points)
        pixels, _ = self.observation.camera.project(points_cam)
        return torch.where(points_cam[..., 2:] > 0, pixels, torch.nan)

    def error_px(self, T_cam_local: Pose) -> NDArray[np.float64]:
        """Return the mean distance (K,) of the points from their true projections."""
        true = self.pixels(self.truth)
        in_image = self.observation.camera.in_image(true)
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
    """Return the share of frames that converge, per axis of `sizes`, per level and for all levels.

    A level has converged if the points are on average within one pixel of its own map from the
    truth; the next level then continues.
    """
    arrived: dict[str, dict[str, list[NDArray[np.bool_]]]] = {axis: {} for axis in sizes}
    for descent in descents:
        for axis, values in sizes.items():
            for name, near in _arrivals(descent, descent.initial_poses(offsets(axis, values))):
                arrived[axis].setdefault(name, []).append(near)
    return {
        axis: {name: np.mean(near, axis=0) for name, near in by_level.items()}
        for axis, by_level in arrived.items()
    }


def _arrivals(descent: Descent, initial: Pose) -> Iterable[tuple[str, NDArray[np.bool_]]]:
    levels = descent.observation.pyramid.levels
    pixel_px = [level.stride / descent.observation.pyramid.scale[0] for level in levels]
    for i, level in enumerate(levels):
        end = descent.record(initial, [i])[-1]
        yield f"stride {level.stride}", descent.error_px(end) < pixel_px[i]
    yield CHAIN, descent.error_px(descent.way(initial)[-1]) < pixel_px[-1]
