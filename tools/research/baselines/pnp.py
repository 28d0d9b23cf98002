"""The pose that makes points meet the rays of pixels; by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.rays import rays

Array = NDArray[np.float64]
MAX_ERROR_PX = 3.0  # of an inlier
RANSAC_ITERATIONS = 5000
CONFIDENCE = 0.9999
LEAST = 6  # correspondences; fewer agree by chance


def normalized(camera: Camera, pixels: NDArray[np.floating]) -> Array:
    """Coordinates (N, 2) in the plane at depth 1 of pixels (N, 2)."""
    return rays(pixels, camera)[:, :2]


def solve_pnp(
    points_map: Array, pixels: NDArray[np.floating], camera: Camera
) -> tuple[Array, int] | None:
    """T_map_cam (4, 4) by RANSAC and least squares on its inliers, and their count.

    points_map: (N, 3); pixels: (N, 2) where they were matched. None where nothing agrees.
    """
    if len(points_map) < LEAST:
        return None
    zero = points_map.mean(0)  # OpenCV's small numbers suffer from coordinates of UTM size
    points, at_one = points_map - zero, normalized(camera, pixels)
    K, tolerance = np.eye(3), MAX_ERROR_PX / float(camera.focal.mean())
    found, turn, shift, inliers = cv2.solvePnPRansac(
        points, at_one, K, None, iterationsCount=RANSAC_ITERATIONS,
        reprojectionError=tolerance, confidence=CONFIDENCE,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < LEAST:
        return None
    chosen = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(points[chosen], at_one[chosen], K, None, turn, shift)
    T_map_cam = se3.inverse(se3.make(cv2.Rodrigues(turn)[0], shift[:, 0]))
    T_map_cam[:3, 3] += zero
    return T_map_cam, len(chosen)
