"""Find the camera pose from points and their pixels (perspective-n-point), by OpenCV."""

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

MAX_ERROR_PX = 3.0  # reprojection error of an inlier
RANSAC_ITERATIONS = 5000
CONFIDENCE = 0.9999
LEAST = 6  # correspondences; fewer may agree by chance


@dataclass(frozen=True, slots=True)
class PnpPose:
    """A camera pose in the map, and the correspondences that agree with it."""

    T_map_cam: Matrix  # (4, 4)
    inliers: NDArray[np.intp]  # (I,) indices of the given correspondences

    def covariance(self, points_map: Matrix, camera: Camera, sigma_px: float) -> Matrix:
        """Return (6, 6) in map axes, if pixel errors are independent with sigma_px per axis."""
        points = torch.from_numpy(points_map[self.inliers])
        T_cam_map = torch.from_numpy(se3.inverse(self.T_map_cam))
        points_cam = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
        _, _, J_pixel_cam = camera.to("cpu", torch.float64).project_with_jacobian(points_cam)
        J = (J_pixel_cam @ jacobian_of_transform(points_cam)).flatten(0, 1).numpy()
        of_camera = sigma_px**2 * np.linalg.pinv(J.T @ J)
        return base_covariance_from_cam(of_camera, self.T_map_cam, np.eye(4))


def solve_pnp(points_map: Matrix, pixels: NDArray[np.floating], camera: Camera) -> PnpPose | None:
    """Solve by RANSAC, then by least squares on its inliers; None if too few agree.

    points_map: (N, 3) metres.
    pixels: (N, 2) where they were observed.
    """
    if len(points_map) < LEAST:
        return None
    zero = points_map.mean(0)  # OpenCV loses precision with coordinates as large as UTM's
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
