"""Images that lie on their side, as photos of the internet do, put upright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.training.scenes import TrainingView

UPRIGHT_DEG = 60.0  # images tilted less are left as they are


def upright(views: Sequence[TrainingView]) -> list[TrainingView]:
    """Views turned by quarters so that what most of them call down is down in all."""
    R_cam_world = np.stack([view.T_cam_world[:3, :3] for view in views])
    down_world = np.median(R_cam_world[:, 1], axis=0)
    down_cam = R_cam_world @ down_world
    tilt_deg = np.rad2deg(np.arctan2(down_cam[:, 0], down_cam[:, 1]))
    turns = np.where(np.abs(tilt_deg) > UPRIGHT_DEG, np.round(-tilt_deg / 90), 0).astype(int) % 4
    return [turned(view, int(n)) for view, n in zip(views, turns, strict=True)]


def turned(view: TrainingView, quarters: int) -> TrainingView:
    """The view with its image turned counter-clockwise; of pinhole cameras only."""
    camera, T_cam_world = view.camera, view.T_cam_world
    for _ in range(quarters):
        camera, T_cam_world = _turned_camera(camera), T_TURNED @ T_cam_world
    return replace(view, camera=camera, T_cam_world=T_cam_world, turns=view.turns + quarters)


# Counter-clockwise, what was right becomes up: x' = y and y' = -x.
R_TURNED: NDArray[np.float64] = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
T_TURNED = se3.make(R_TURNED, np.zeros(3))


def _turned_camera(camera: Camera) -> Camera:
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    width, height = camera.size.tolist()
    return Camera.create(camera.model, [height, width], [fy, fx], [cy, width - 1 - cx])
