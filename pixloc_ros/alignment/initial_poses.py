"""Initial poses drawn from the prior's covariance, measured in pixels.

A yaw error moves far points most, a translation near ones, and what one initial pose can correct
is an image motion. So the prior's directions are scaled by the mean pixel motion that they cause:
where the prior's pose reaches far enough nothing is drawn, and the count follows from the
directions left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.config import HypothesesConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, through_transform
from pixloc_ros.types import Matrix

LEAST_MOTION = 1e-6  # squared, of the largest: no pose is drawn farther to move points at all


def draw_initial_poses(
    T_cam_local: Pose,
    covariance_cam: Matrix,
    points: Tensor,
    camera: Camera,
    config: HypothesesConfig,
) -> tuple[Pose, int]:
    """Draw initial poses (K,) around an unbatched prior pose, the prior itself first.

    Returns also how many it takes to cover the prior, which may be more than are drawn.

    covariance_cam: (6, 6) of the update on the left in the camera frame. points: (N, 3) local.
    camera: of the image that the network sees.
    """
    directions, motion_px = _principal_motions(
        covariance_cam, _motion_matrix(T_cam_local, points, camera)
    )
    # Half the width of what is to be covered, in radii of convergence.
    spans = config.coverage_sigma * motion_px / config.convergence_radius_px
    wide = spans > 1
    needed = int(np.prod(np.ceil(spans[wide])))
    count = min(needed, config.max_initial_poses)
    offsets = config.coverage_sigma * _cover_ball(int(wide.sum()), count)
    twists = torch.from_numpy(offsets @ directions[:, wide].T).to(T_cam_local.t)
    return Pose(T_cam_local.R[None], T_cam_local.t[None]).retract(twists), needed


def poses_around(
    T_cam_local: Pose, points: Tensor, camera: Camera, motions_px: Sequence[float], count: int
) -> Pose:
    """Draw poses around an unbatched one from which the points have moved by so many pixels.

    They move so far on average, in directions drawn evenly from those that move points at all:
    `count` poses for each motion, in the same directions.
    camera: of the image that the network sees.
    """
    squared_px, vectors = np.linalg.eigh(_motion_matrix(T_cam_local, points, camera))
    least = max(LEAST_MOTION * squared_px[-1], np.finfo(float).tiny)
    root = vectors / np.sqrt(squared_px.clip(min=least))
    directions = np.random.default_rng(0).standard_normal((count, 6))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offsets = np.concatenate([motion_px * directions for motion_px in motions_px])
    twists = torch.from_numpy(offsets @ root.T).to(T_cam_local.t)
    return Pose(T_cam_local.R[None], T_cam_local.t[None]).retract(twists)


def _motion_matrix(T_cam_local: Pose, points: Tensor, camera: Camera) -> Matrix:
    """Mean of J'J (6, 6): the mean squared pixel motion of the points per squared twist."""
    points_cam = T_cam_local.transform(points)
    _, valid, J_pixel_cam = camera.project_with_jacobian(points_cam)
    if not valid.any():
        return np.zeros((6, 6))
    J = through_transform(J_pixel_cam, points_cam)[valid].flatten(0, 1).double()
    return (J.mT @ J).cpu().numpy() / int(valid.sum())


def _principal_motions(covariance: Matrix, motion_matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Twists (6, 6; columns) of one sigma each, and the pixel motion (6,) that each causes."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(min=0))
    squared_px, rotation = np.linalg.eigh(root.T @ motion_matrix @ root)
    return root @ rotation, np.sqrt(squared_px.clip(min=0))


def _cover_ball(dimensions: int, count: int) -> Matrix:
    """`count` low-discrepancy points (count, dimensions) in the unit ball, its centre first."""
    if dimensions == 0 or count == 1:
        return np.zeros((1, dimensions))
    from scipy.stats import qmc  # here: it takes most of a second, and many programs draw nothing

    exponent, inside = 6, np.zeros((0, dimensions))
    while len(inside) < count - 1:  # Sobol sequences are balanced in powers of two only
        sobol = qmc.Sobol(dimensions, rng=np.random.default_rng(0))
        drawn = 2.0 * sobol.random_base2(exponent) - 1.0
        inside = drawn[np.linalg.norm(drawn, axis=1) <= 1.0]
        exponent += 1
    return np.vstack([np.zeros((1, dimensions)), inside[: count - 1]])
