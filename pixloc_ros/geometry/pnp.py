"""The pose that makes points meet the rays of pixels; by OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import base_covariance_from_cam
from pixloc_ros.geometry.pose import jacobian_of_transform
from pixloc_ros.geometry.rays import rays
from pixloc_ros.geometry.se3 import Matrix

MAX_ERROR_PX = 3.0  # of an inlier
RANSAC_ITERATIONS = 5000
CONFIDENCE = 0.9999
LEAST = 6  # correspondences; fewer agree by chance


@dataclass(frozen=True, slots=True)
class PnpPose:
    """A camera pose in the map, and which correspondences agree with it."""

    T_map_cam: Matrix  # (4, 4)
    inliers: NDArray[np.intp]  # (I,) of those given

    def covariance(self, points_map: Matrix, camera: Camera, sigma_px: float) -> Matrix:
        """(6, 6) in map axes, of pixels with independent errors of sigma_px per axis."""
        points = torch.from_numpy(points_map[self.inliers])
        T_cam_map = torch.from_numpy(se3.inverse(self.T_map_cam))
        points_cam = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
        _, _, J_pixel_cam = camera.to("cpu", torch.float64).project_with_jacobian(points_cam)
        J = (J_pixel_cam @ jacobian_of_transform(points_cam)).flatten(0, 1).numpy()
        of_camera = sigma_px**2 * np.linalg.pinv(J.T @ J)
        return base_covariance_from_cam(of_camera, self.T_map_cam, np.eye(4))


def solve_pnp(points_map: Matrix, pixels: NDArray[np.floating], camera: Camera) -> PnpPose | None:
    """Solve by RANSAC, and least squares on its inliers; None where nothing agrees.

    points_map: (N, 3); pixels: (N, 2) where they were matched.
    """
    if len(points_map) < LEAST:
        return None
    zero = points_map.mean(0)  # OpenCV's small numbers suffer from coordinates of UTM size
    points, at_one = points_map - zero, rays(pixels, camera)[:, :2]
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
    return PnpPose(T_map_cam, chosen)
