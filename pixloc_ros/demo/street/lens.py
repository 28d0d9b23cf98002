"""The lens of the camera on the generated street, with distortion and shutter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch

from pixloc_ros.config.camera import STAMP_SHARES
from pixloc_ros.demo.street.surfaces import Array
from pixloc_ros.errors import ConfigError
from pixloc_ros.geometry.camera import Camera

RAYS_MARGIN_PX = 2  # around the undistorted picture, needed for interpolation


@dataclass(frozen=True, slots=True)
class StreetLens:
    """A camera in terms of sensor_msgs/CameraInfo.

    readout_s: time from the first row's exposure to the last row's; 0: all rows at once.
    stamp_row: as in CameraConfig.
    distortion_model, D: as in CameraInfo; empty: a pinhole camera.
    """

    width: int
    height: int
    focal_share: float = 0.625  # focal length as a share of the width
    readout_s: float = 0.0
    stamp_row: Literal["first", "middle", "last"] = "middle"
    distortion_model: str = ""
    D: tuple[float, ...] = ()

    @property
    def K(self) -> tuple[float, float, float, float]:
        """fx fy cx cy in pixels, top left pixel centre (0, 0); slightly off-centre."""
        focal = self.focal_share * self.width
        return focal, focal, 0.497 * self.width, 0.503 * self.height

    @property
    def matrix(self) -> Array:
        """K as a matrix (3, 3)."""
        fx, fy, cx, cy = self.K
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    @property
    def camera(self) -> Camera:
        """This camera as the rest of the package represents it."""
        K = self.matrix.ravel().tolist()
        return Camera.from_ros(self.distortion_model, self.width, self.height, K, self.D)

    def project(self, points_cam: Array) -> Array:
        """Return pixels (N, 2) of points (N, 3); NaN for points outside the picture."""
        camera = self.camera
        pixels, valid, _ = camera.project_with_jacobian(torch.from_numpy(points_cam))
        return np.where(valid.numpy()[:, None], pixels.numpy(), np.nan)

    def rays(self) -> Array:
        """Return viewing rays (H, W, 2) of all pixels: x/z and y/z in the camera's frame."""
        return _rays(self)

    def undistorted(self, rows: slice) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """Return K and size (width, height) of a pinhole picture that covers the given rows."""
        fx, fy, _, _ = self.K
        pixels = self.rays()[rows].reshape(-1, 2) * (fx, fy)
        low, high = pixels.min(0) - RAYS_MARGIN_PX, pixels.max(0) + RAYS_MARGIN_PX
        width, height = np.ceil(high - low).astype(int).tolist()
        return (fx, fy, float(-low[0]), float(-low[1])), (width, height)

    def row_before_s(self, row: float) -> float:
        """Return how long before the stamp a row is exposed; negative: after it."""
        return self.readout_s * (STAMP_SHARES[self.stamp_row] - row / (self.height - 1))


LENSES = {
    "pinhole": StreetLens(640, 384),
    "plumb_bob": StreetLens(
        640, 384, 0.62, distortion_model="plumb_bob", D=(-0.24, 0.055, 0.0012, -0.0008, -0.004)
    ),
    "rational_polynomial": StreetLens(
        640,
        384,
        0.56,
        distortion_model="rational_polynomial",
        D=(0.42, 0.06, -0.0006, 0.0009, 0.004, 0.72, 0.17, 0.012),
    ),
    "equidistant": StreetLens(
        640, 384, 0.50, distortion_model="equidistant", D=(-0.012, 0.006, -0.004, 0.0008)
    ),
}


def find_lens(name: str) -> StreetLens:
    """Return the lens of this name. Raises ConfigError for an unknown one."""
    if name not in LENSES:
        raise ConfigError(f"unknown lens '{name}'; choose from {', '.join(LENSES)}")
    return LENSES[name]


@lru_cache(maxsize=4)
def _rays(lens: StreetLens) -> Array:
    """Compute rays by OpenCV, so that pictures do not depend on the distortion they test."""
    pixels = np.stack(np.meshgrid(np.arange(lens.width), np.arange(lens.height)), -1)
    pixels, K, D = pixels.reshape(-1, 1, 2).astype(np.float64), lens.matrix, np.array(lens.D)
    if not lens.D:
        rays = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    elif lens.distortion_model == "equidistant":
        rays = cv2.fisheye.undistortPoints(pixels, K, D)
    else:
        exactly = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        rays = cv2.undistortPoints(pixels, K, D, criteria=exactly)
    return rays.reshape(lens.height, lens.width, 2)
