"""Poses and points of joined chunks, adjusted together.

Levenberg-Marquardt on reprojection errors (Cauchy) and on positions that are held near where they
were (Huber), as in each chunk. Points are eliminated (Schur complement) some at a time: besides
the tracks only the system of the poses is in memory, where those that share points are tied.
Positions are disturbed in the map, rotations on the right: R <- R exp(w).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import LOSS_PX
from pixloc_ros.maps.build.from_bag.adjustment import HELD_SIGMAS, turn_between
from pixloc_ros.maps.build.tracks import JoinedTracks, damped, robust_weights, sums

ITERATIONS = 15
DAMPING = 1e-4  # to begin with, as a share of the diagonals
DONE = 1e-4  # of the cost, by which a step lowers it
FOLLOWING = 2  # steps of the points after one of the poses


def adjust(
    tracks: JoinedTracks, T_map_cam: Matrix, T_start: Matrix, sigma_m: float
) -> tuple[JoinedTracks, Matrix]:
    """Tracks with their points, and poses (N, 4, 4), that fit best.

    T_start: (N, 4, 4), near whose positions the result is held (`mapping.position_sigma_m`).
    Images without points stay where they are.
    """
    tracks = tracks.adjusted(T_map_cam)
    problem = _JointProblem(
        T_start[:, :3, 3], sigma_m, np.bincount(tracks.image, None, len(T_start)) > 0
    )
    cost, damping = problem.cost(tracks, T_map_cam), DAMPING
    for _ in range(ITERATIONS):
        moved = problem.step(tracks, T_map_cam, damping)
        other = tracks.adjusted(moved, FOLLOWING)
        other_cost = problem.cost(other, moved)
        if not other_cost < cost:
            damping *= 10
            continue
        done = cost - other_cost < DONE * cost
        tracks, T_map_cam, cost, damping = other, moved, other_cost, damping / 10
        if done:
            break
    free = problem.free
    turn = turn_between(T_map_cam[free], T_start[free], sigma_m)
    T_map_cam = np.where(free[:, None, None], turn @ T_map_cam, T_map_cam)
    return tracks.moved(turn), T_map_cam


@dataclass(frozen=True, slots=True, eq=False)
class _JointProblem:
    anchors: Matrix  # (N, 3)
    sigma_m: float
    free: NDArray[np.bool_]  # (N,) images that show a point; the others stay

    def cost(self, tracks: JoinedTracks, T_map_cam: Matrix) -> float:
        off = np.linalg.norm(T_map_cam[:, :3, 3] - self.anchors, axis=-1)[self.free] / self.sigma_m
        held = np.where(off <= HELD_SIGMAS, off**2, 2 * HELD_SIGMAS * off - HELD_SIGMAS**2).sum()
        error_px = tracks.errors_px(T_map_cam)
        return float(held + (LOSS_PX**2 * np.log1p((error_px / LOSS_PX) ** 2)).sum())

    def step(self, tracks: JoinedTracks, T_map_cam: Matrix, damping: float) -> Matrix:
        """Poses after a step; points follow them."""
        count = len(T_map_cam)
        blocks, gradient = self._held(T_map_cam)
        tied = sparse.bsr_matrix((6 * count, 6 * count))
        for _, batch in tracks.batches():
            own, g, shared = _eliminated(batch, T_map_cam, damping)
            blocks += own
            gradient += g
            tied = tied + shared
        blocks[:, range(6), range(6)] *= 1 + damping
        blocks[~self.free] = np.eye(6)
        index = np.arange(count)
        system = sparse.bsr_matrix((blocks, index, np.arange(count + 1)), shape=tied.shape) - tied
        step = spsolve(system.tocsc(), -gradient.ravel()).reshape(-1, 6)
        step[~self.free] = 0.0
        T = T_map_cam.copy()
        T[:, :3, 3] += step[:, :3]
        T[:, :3, :3] = T[:, :3, :3] @ Rotation.from_rotvec(step[:, 3:]).as_matrix()
        return T

    def _held(self, T_map_cam: Matrix) -> tuple[Matrix, Matrix]:
        """Blocks (N, 6, 6) and gradient (N, 6) of what holds the positions."""
        off = T_map_cam[:, :3, 3] - self.anchors
        sigmas = np.linalg.norm(off, axis=-1) / self.sigma_m
        weight = np.minimum(1.0, HELD_SIGMAS / np.maximum(sigmas, 1e-9)) / self.sigma_m**2
        blocks, gradient = np.zeros((len(off), 6, 6)), np.zeros((len(off), 6))
        blocks[:, :3, :3] = weight[:, None, None] * np.eye(3)
        gradient[:, :3] = weight[:, None] * off
        return blocks, gradient


def _eliminated(
    tracks: JoinedTracks, T_map_cam: Matrix, damping: float
) -> tuple[Matrix, Matrix, sparse.bsr_matrix]:
    """Normal equations of N poses: blocks (N, 6, 6), gradient (N, 6), and (6N, 6N) to subtract.

    The last is what the poses owe to the points that they share (Schur's complement).
    """
    count, points = len(T_map_cam), len(tracks.points)
    residual, J_point = tracks.residuals(T_map_cam)
    T = T_map_cam[tracks.image]
    R = T[:, :3, :3]
    points_cam = np.einsum("kji,kj->ki", R, tracks.points[tracks.point] - T[:, :3, 3])
    J_pose = np.concatenate([-J_point, J_point @ R @ skew(points_cam)], axis=-1)
    weight = robust_weights(residual)[:, None, None]
    weighted_pose = np.swapaxes(J_pose * weight, -1, -2)  # (O, 6, 2)
    weighted_point = np.swapaxes(J_point * weight, -1, -2)  # (O, 3, 2)
    H = sums(tracks.point, weighted_point @ J_point, points)
    g = sums(tracks.point, (weighted_point @ residual[..., None])[..., 0], points)
    H = damped(H) + damping * H * np.eye(3)
    cross = weighted_pose @ J_point  # (O, 6, 3)
    solved = cross @ np.linalg.inv(H)[tracks.point]
    gradient = weighted_pose @ residual[..., None] - solved @ g[tracks.point][..., None]
    order = np.argsort(tracks.image, kind="stable")
    bounds = np.searchsorted(tracks.image[order], np.arange(count + 1))
    where = (tracks.point[order], bounds)
    shape = (6 * count, 3 * points)
    shared = (
        sparse.bsr_matrix((solved[order], *where), shape=shape)
        @ sparse.bsr_matrix((cross[order], *where), shape=shape).T
    )
    return (
        sums(tracks.image, weighted_pose @ J_pose, count),
        sums(tracks.image, gradient[..., 0], count),
        shared,
    )
