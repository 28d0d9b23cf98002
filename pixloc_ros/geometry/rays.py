"""Viewing rays of pixels, for every camera model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.distortion import COEFFICIENTS, FISHEYE

AHEAD = tuple(model for model in COEFFICIENTS if model != FISHEYE)
NEWTON_STEPS = 10


def rays(pixels: NDArray[np.floating], camera: Camera) -> NDArray[np.float64]:
    """Return points (N, 3) at z = 1 in the camera frame that project to pixels (N, 2).

    OpenCV's undistortPoints is not used: in the corners of a strong lens it is off by half a pixel.
    """
    target = torch.from_numpy(np.asarray(pixels, np.float64))
    camera = camera.to("cpu", torch.float64)
    points = torch.ones(len(target), 3, dtype=torch.float64)
    points[:, :2] = (target - camera.center) / camera.focal
    for _ in range(NEWTON_STEPS if len(camera.distortion) else 0):
        projected, _, J = camera.project_with_jacobian(points)
        points[:, :2] += torch.linalg.solve(J[..., :2], target - projected)
    return points.numpy()
