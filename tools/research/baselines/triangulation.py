"""Points where rays of several cameras meet."""

from __future__ import annotations

import numpy as np

from pixloc_ros.geometry.se3 import Matrix

ROUNDS = 8
MIN_DEPTH_M = 0.1
MIN_PARALLAX_RAD = np.deg2rad(0.3)


def triangulate(centers: Matrix, rays: Matrix, tolerance_rad: float) -> Matrix:
    """Points (N, 3) by least squares of angles, NaN where unknown.

    centers: (V, 3) of the cameras; rays: (V, N, 3) of length 1, NaN where a camera has none.
    A point is known where the first camera and another one see it within `tolerance_rad`, ahead
    and with parallax.
    """
    has_ray = np.isfinite(rays[..., 0])
    origins, rays = centers[:, None] - centers[0], np.nan_to_num(rays)
    weights = has_ray.astype(float)
    for _ in range(ROUNDS):  # Geman and McClure's weights, of angles
        points = _nearest(origins, rays, weights)
        depth, miss = _misses(points - origins, rays)
        weights = has_ray / (depth * (1 + (miss / tolerance_rad) ** 2)) ** 2
    agree = has_ray & (depth > 0) & (miss < tolerance_rad)
    parallax = np.where(agree, np.linalg.norm(rays - rays[0], axis=-1), 0).max(0)
    known = agree[0] & (parallax > MIN_PARALLAX_RAD)
    return np.where(known[:, None], points + centers[0], np.nan)


def _nearest(origins: Matrix, rays: Matrix, weights: Matrix) -> Matrix:
    """Points (N, 3) with the least weighted squared distances from rays (V, N, 3)."""
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    normal = np.einsum("vn,vnij->nij", weights, across)
    normal += 1e-9 * (1e-9 + np.trace(normal, axis1=1, axis2=2))[:, None, None] * np.eye(3)
    right = np.einsum("vn,vnij,vnj->ni", weights, across, np.broadcast_to(origins, rays.shape))
    return np.linalg.solve(normal, right[..., None])[..., 0]


def _misses(offsets: Matrix, rays: Matrix) -> tuple[Matrix, Matrix]:
    """Depths along the rays and tangents of the angles off them, (V, N) each."""
    depth = np.einsum("vni,vni->vn", offsets, rays)
    depth[np.abs(depth) < MIN_DEPTH_M] = MIN_DEPTH_M
    off = np.linalg.norm(offsets - depth[..., None] * rays, axis=-1)
    return depth, off / np.abs(depth)
