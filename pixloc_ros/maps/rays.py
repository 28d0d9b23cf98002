"""Where pixels look."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera

MODELS = ("PINHOLE", "OPENCV")  # whose distortion OpenCV takes off


def rays(pixels: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    """Points (N, 3) at z = 1 of the camera that project to pixels (N, 2); camera of MODELS."""
    if not len(pixels):
        return np.empty((0, 3))
    distortion = camera.distortion.numpy().astype(np.float64)
    at_one = cv2.undistortPoints(pixels[:, None], camera.K(), distortion)[:, 0]
    return np.column_stack([at_one, np.ones(len(at_one))])
