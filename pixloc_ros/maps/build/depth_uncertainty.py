"""How uncertain triangulated points are, above all in depth, from the images that show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapModel

MAX_SIGMA = 0.5  # relative: with more, a point says nothing about where it is along its ray
# E|e|^2 / (E|e|)^2 of a Gaussian error in the plane: models store the mean distance of a track.
SQUARED_BY_MEAN = 4 / np.pi


@dataclass(frozen=True, slots=True)
class PointImage:
    """An image that points were triangulated from."""

    camera: Camera
    T_cam_world: Matrix  # (4, 4)
    points: NDArray[np.integer]  # (N,) indices of those that it sees, each once


def model_depth_sigmas(model: ColmapModel) -> NDArray[np.float32]:
    """Estimate `depth_sigmas` (P,) of the points of a model."""
    images = []
    for image in model.images:
        ids = np.unique(image.point_ids[image.point_ids >= 0])
        points = np.searchsorted(model.point_ids, ids)
        images.append(PointImage(model.cameras[image.camera_id], image.T_cam_world, points))
    return depth_sigmas(model.points_world, images, model.errors_px)


def depth_sigmas(
    points_world: Matrix, images: Iterable[PointImage], errors_px: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Estimate the standard deviations (P,) of the points' depths, relative to their distances.

    points_world: (P, 3). errors_px: (P,) mean reprojection errors, from all of which together the
    noise of the keypoints is estimated; negative where unknown, as for points of a cloud, whose
    sigma is 0. Poses are taken as exact.
    """
    known = errors_px >= 0
    if not known.any():
        return np.zeros(len(points_world), np.float32)
    count, distance = np.zeros((2, len(points_world)))
    information = np.zeros((len(points_world), 3, 3))
    for image in images:
        points_cam = se3.transform(image.T_cam_world, points_world[image.points])
        count[image.points] += 1
        distance[image.points] += np.linalg.norm(points_cam, axis=-1)
        information[image.points] += _information(points_cam, image)
    weakest = np.linalg.eigvalsh(information)[:, 0].clip(min=np.finfo(float).tiny)
    sigma = _keypoint_sigma_px(errors_px, count) / np.sqrt(weakest)
    relative = np.minimum(sigma * count / distance.clip(min=1e-9), MAX_SIGMA)
    return np.where(known & (count > 0), relative, 0.0).astype(np.float32)


def point_information(points_world: Matrix, images: Iterable[PointImage]) -> Matrix:
    """Return inverse covariances (P, 3, 3) of points, as one pixel of noise in the images gives.

    points_world: (P, 3). Poses are taken as exact. An image that a point cannot be projected into
    adds nothing.
    """
    information = np.zeros((len(points_world), 3, 3))
    for image in images:
        points_cam = se3.transform(image.T_cam_world, points_world[image.points])
        information[image.points] += _information(points_cam, image)
    return information


def _information(points_cam: Matrix, image: PointImage) -> Matrix:
    """What one image adds to the inverse covariances (N, 3, 3) of its points (N, 3)."""
    jacobian = image.camera.project_with_jacobian(torch.from_numpy(points_cam))[2].numpy()
    J = jacobian @ image.T_cam_world[:3, :3]
    return np.nan_to_num(J.mT @ J)


def _keypoint_sigma_px(errors_px: NDArray[np.floating], count: NDArray[np.float64]) -> float:
    """Standard deviation of a keypoint along each axis.

    Of the 2 n coordinates of a track, three are used up by the point itself.
    """
    tracks = (errors_px >= 0) & (count >= 2)
    squared = SQUARED_BY_MEAN * (count * errors_px**2)[tracks].sum()
    return float(np.sqrt(squared / max((2 * count - 3)[tracks].sum(), 1)))
