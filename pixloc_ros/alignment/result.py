"""What an alignment reports: the best pose in the map, with the measures of its quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.policy import LevelResult
from pixloc_ros.alignment.residuals import Linearization
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.config import AlignmentConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment, Matrix

CELL_PX = 50.0  # of the image that the network sees: points so near each other err together
MAX_CELL = 10_000  # across or down; what projects farther off is in no image


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the stages came to."""

    history: list[tuple[int, LevelResult]]  # level, and its best distinct results in order
    at: Linearization  # of the last stage, unbatched, at the best of its results
    hypotheses: int  # initial poses used: all of them, or as many as memory had room for


def describe(
    refined: Refinement,
    observations: Sequence[CameraObservation],
    initial_poses: Pose,
    config: AlignmentConfig,
) -> Alignment:
    """Report the best pose of a refinement; of its initial poses (K,) the first is the prior."""
    last, at = refined.history[-1][1], refined.at
    inliers = at.squared < config.inlier_max_squared_residual
    counts = [len(observation.view) for observation in observations]
    hessian = at.hessian.double().cpu().numpy()
    origin = observations[0].view.origin
    T_map_lead = to_map(last.T_cam_local[0], origin)
    T_map_lead_prior = to_map(initial_poses[0], origin)
    pixels = image_pixels(observations, T_map_lead)
    return Alignment(
        T_map_cam=T_map_lead,
        T_map_cam_prior=T_map_lead_prior,
        hessian=hessian,
        covariance_cam=sandwich(hessian, _gradients(at), image_cells(observations, pixels)),
        cost=float(last.cost[0]),
        cost_per_level=tuple(float(ends.cost[0]) for _, ends in refined.history),
        inlier_share=_share(inliers),
        iterations=tuple(int(ends.iterations[0]) for _, ends in refined.history),
        converged=bool(last.converged[0]),
        condition=scaled_condition(hessian),
        hypotheses=refined.hypotheses,
        hypotheses_dropped=len(initial_poses.t) - refined.hypotheses,
        runner_up_cost=float(last.cost[1]) if len(last.cost) > 1 else float("inf"),
        runner_up_T_map_cam=to_map(last.T_cam_local[1], origin) if len(last.cost) > 1 else None,
        points_map=np.concatenate([_points_map(observation) for observation in observations]),
        pixels_prior=image_pixels(observations, T_map_lead_prior),
        pixels=pixels,
        residuals=at.squared.sqrt().float().cpu().numpy(),
        points_per_camera=tuple(counts),
        inlier_share_per_camera=tuple(_share(own) for own in inliers.split(counts)),
    )


def continued(
    first: Alignment,
    second: Alignment,
    observations: Sequence[CameraObservation],
    T_map_cam_prior: Matrix,
) -> Alignment:
    """Join two alignments, the second of which began where the first ended, to one.

    observations and T_map_cam_prior: of the second, whose lead may be another camera. The
    runner-up keeps its distance in cost from the best.
    """
    return replace(
        second,
        T_map_cam_prior=T_map_cam_prior,
        pixels_prior=image_pixels(observations, T_map_cam_prior),
        runner_up_cost=second.cost + first.runner_up_cost - first.cost,
        runner_up_T_map_cam=first.runner_up_T_map_cam,
        iterations=first.iterations + second.iterations,
        cost_per_level=first.cost_per_level + second.cost_per_level,
    )


def with_refined_pose(
    found: Alignment,
    T_map_cam: Matrix,
    at: Linearization,
    observations: Sequence[CameraObservation],
) -> Alignment:
    """Move an alignment to a pose (4, 4) refined with further observations of the points.

    at: the linearised problem with them, unbatched, from which Hessian and covariance are. The
    cost, and all else that tells how well the pose fits, remain those of the pose found.
    """
    hessian = at.hessian.double().cpu().numpy()
    pixels = image_pixels(observations, T_map_cam)
    cells = image_cells(observations, pixels)[_points_of_further(observations)]
    return replace(
        found,
        T_map_cam=T_map_cam,
        hessian=hessian,
        covariance_cam=sandwich(hessian, _gradients(at), cells),
        condition=scaled_condition(hessian),
        pixels=pixels,
    )


def to_map(T_cam_local: Pose, origin: Matrix) -> Matrix:
    """T_map_cam (4, 4) in float64 from an unbatched pose relative to the local origin."""
    T = T_cam_local.to("cpu").matrix().double().numpy()
    U, _, Vt = np.linalg.svd(T[:3, :3])  # float32 steps let the rotation drift
    T_map_cam = se3.inverse(se3.make(U @ Vt, T[:3, 3]))
    T_map_cam[:3, 3] += origin
    return T_map_cam


def image_pixels(
    observations: Sequence[CameraObservation], T_map_lead: Matrix
) -> NDArray[np.float32]:
    """Projections (N, 2) of all points, each in its camera's image; NaN behind the camera."""
    return np.concatenate([_image_pixels(each, T_map_lead) for each in observations])


def _gradients(at: Linearization) -> Matrix:
    """Gradients (N, 6) of the points."""
    gradients: Matrix = at.point_gradients.double().cpu().numpy()
    return gradients


def sandwich(hessian: Matrix, gradients: Matrix, cell_of_point: NDArray[np.int64]) -> Matrix:
    """Covariance (6, 6) of the update, H^-1 (sum g g') H^-1, from gradients g of cells of points.

    The sandwich estimator (Huber 1967) takes the scale of the residuals from the points
    themselves and stays honest where their noise is not that of the model; NaN if H is singular.
    Points of one cell (N,) err together, so their gradients (N, 6) are summed (Liang and Zeger
    1986).
    """
    g = np.zeros((cell_of_point.max(initial=-1) + 1, 6))
    np.add.at(g, cell_of_point, gradients)
    try:
        H_inverse = np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return np.full((6, 6), np.nan)
    return H_inverse @ (g.T @ g) @ H_inverse


def image_cells(
    observations: Sequence[CameraObservation], pixels: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Number (N,) the cells of the cameras' images that all points' pixels (N, 2) are in."""
    counts = [len(observation.view) for observation in observations]
    cameras = np.repeat(np.arange(len(counts)), counts)
    side_px = CELL_PX / observations[0].pyramid.scale[0]
    column, row = np.nan_to_num(pixels // side_px, nan=-1).clip(-1, MAX_CELL).astype(np.int64).T
    across = MAX_CELL + 2
    keys = (cameras * across + row + 1) * across + column + 1
    return np.unique(keys, return_inverse=True)[1]


def _points_of_further(observations: Sequence[CameraObservation]) -> NDArray[np.int64]:
    """Which of all points (N,) the rows of a system with further observations are of."""
    rows, first = [], 0
    for view in (observation.view for observation in observations):
        rows.append(first + np.arange(len(view)))
        if view.further is not None:
            rows.append(first + view.further.of.cpu().numpy())
        first += len(view)
    return np.concatenate(rows)


def scaled_condition(hessian: Matrix) -> float:
    """Condition number after scaling the diagonal to one, so that units do not matter."""
    diagonal = np.sqrt(np.diag(hessian))
    if not np.isfinite(hessian).all() or (diagonal <= 0).any():
        return float("inf")
    return float(np.linalg.cond(hessian / np.outer(diagonal, diagonal)))


def _share(true: Tensor) -> float:
    return float(true.double().mean())


def _points_map(observation: CameraObservation) -> Matrix:
    return observation.view.points.cpu().double().numpy() + observation.view.origin


def _image_pixels(observation: CameraObservation, T_map_lead: Matrix) -> NDArray[np.float32]:
    T_cam_map = torch.from_numpy(observation.T_cam_lead @ se3.inverse(T_map_lead))
    points_cam = Pose.from_matrix(T_cam_map).transform(torch.from_numpy(_points_map(observation)))
    pixels, _ = observation.camera.to("cpu", torch.float64).project(points_cam)
    return torch.where(points_cam[..., 2:] > 0, pixels, torch.nan).float().numpy()
