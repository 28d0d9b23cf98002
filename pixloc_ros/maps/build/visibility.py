"""Which points of a cloud a camera sees, by a z-buffer with cells as large as the cloud is sparse.

A surface of points has holes, and what lies behind shines through them. So every point is drawn as
large as the distance to its neighbours looks from the camera, into the level of an image pyramid
whose pixels have that size. Slanted surfaces fill large cells over a range of depths: a point
is hidden only if it is behind the surface that passes through the nearest point of its cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.clouds import import_open3d

HOLES = 1.2  # the widest gaps, relative to the spacing; thinning a regular grid makes such
NEIGHBOURS = 8  # the eighth tells the spacing, also where points lie in scan lines
MAX_LEVEL = 6  # cells of at most 64 px
TOLERANCE_M, TOLERANCE_SHARE = 0.1, 0.01  # of depth, by which a point may be behind another
SURFACE_TOLERANCE_M, SURFACE_TOLERANCE_SHARE = 0.01, 1e-3  # as above, of exact surfaces
FLATNESS = 0.05  # least to middle variance of the neighbours, up to which they are a plane
PLANE_SLOPE = 0.1  # by which neighbouring surface elements may rise out of the plane


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points with what their neighbours tell."""

    points: Matrix  # (N, 3) metres
    spacing_m: Matrix  # (N,) distance to the neighbours
    normals: Matrix  # (N, 3), of either sign; zero where neighbours are not in a plane


class MeshOccluder:
    """Triangles that hide what is behind them, by ray casting (open3d)."""

    def __init__(self, vertices: Matrix, triangles: NDArray[np.integer]) -> None:
        """vertices (V, 3) near zero: rays are cast in float32; triangles (T, 3)."""
        open3d = import_open3d(Path("a mesh"))
        self._tensor = open3d.core.Tensor
        self._scene = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            self._tensor(vertices.astype(np.float32)), self._tensor(triangles.astype(np.uint32))
        )

    def hides(self, points: Matrix, place: Matrix) -> NDArray[np.bool_]:
        """(N,) whether points (N, 3) are behind a triangle, seen from a place (3,)."""
        offsets = points - place
        distance_m = np.linalg.norm(offsets, axis=-1)
        start = np.broadcast_to(place, offsets.shape)
        rays = np.concatenate([start, offsets / distance_m[:, None]], -1).astype(np.float32)
        hit_m = self._scene.cast_rays(self._tensor(rays))["t_hit"].numpy()
        return hit_m < distance_m * (1 - SURFACE_TOLERANCE_SHARE) - SURFACE_TOLERANCE_M


def thin(points: Matrix, voxel_m: float) -> NDArray[np.intp]:
    """Indices, ascending, of one point per voxel: that nearest to the mean of all in it."""
    cells = np.floor((points - points.min(0)) / voxel_m).astype(np.int64)
    shape = cells.max(0) + 1
    keys = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    _, voxel, counts = np.unique(keys, return_inverse=True, return_counts=True)
    zero = points[0]
    sums = [np.bincount(voxel, column) for column in (points - zero).T]
    means = np.column_stack(sums) / counts[:, None] + zero
    distance_m = np.linalg.norm(points - means[voxel], axis=-1)
    order = np.lexsort((distance_m, voxel))
    return np.sort(order[np.searchsorted(voxel[order], np.arange(len(counts)))])


def prepare(points: Matrix) -> Cloud:
    """Spacing and normals from the NEIGHBOURS nearest points."""
    count = min(NEIGHBOURS + 1, len(points))
    distances_m, index = cKDTree(points).query(points, k=count)
    distances_m, index = distances_m.reshape(len(points), -1), index.reshape(len(points), -1)
    around = points[index] - points[index].mean(1, keepdims=True)
    variances, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    flat = variances[:, 0] <= FLATNESS * variances[:, 1]
    return Cloud(points, distances_m[:, -1], axes[:, :, 0] * flat[:, None])


def visible(
    cloud: Cloud,
    camera: Camera,
    T_map_cam: Matrix,
    range_m: tuple[float, float],
    surface: MeshOccluder | None = None,
) -> tuple[NDArray[np.intp], Matrix, Matrix]:
    """Indices (M,) of the points seen from a pose (4, 4), their pixels (M, 2) and depths (M,).

    range_m: nearest and farthest distance of points; what hides them may be nearer.
    surface: what hides them, where it is known; otherwise the points hide each other.
    """
    offsets = cloud.points - T_map_cam[:3, 3]
    distance_m = np.linalg.norm(offsets, axis=-1)
    index = np.flatnonzero((distance_m < range_m[1]) & (offsets @ T_map_cam[:3, 2] > 0))
    points_cam = offsets[index] @ T_map_cam[:3, :3]
    projected, in_image = camera.project(torch.from_numpy(points_cam))
    inside = in_image.numpy()
    index, points_cam, pixels = index[inside], points_cam[inside], projected.numpy()[inside]
    if surface is None:
        seen = ~_hidden(cloud, camera, T_map_cam, index, points_cam, pixels)
    else:
        seen = ~surface.hides(cloud.points[index], T_map_cam[:3, 3])
    seen &= distance_m[index] > range_m[0]
    return index[seen], pixels[seen], points_cam[seen, 2]


def _hidden(
    cloud: Cloud,
    camera: Camera,
    T_map_cam: Matrix,
    index: NDArray[np.intp],
    points_cam: Matrix,
    pixels: Matrix,
) -> NDArray[np.bool_]:
    depth = points_cam[:, 2]
    size_px = HOLES * float(camera.focal.mean()) * cloud.spacing_m[index] / depth
    level = np.clip(np.ceil(np.log2(np.maximum(size_px, 1e-9))), 0, MAX_LEVEL).astype(int)
    normals_cam = cloud.normals[index] @ T_map_cam[:3, :3]
    hidden = np.zeros(len(index), bool)
    for this in np.unique(level):
        cell = _cells(pixels, camera, int(this))
        drawn = np.flatnonzero(level == this)
        nearest = _nearest_per_cell(cell, drawn, depth)
        before = nearest[cell]
        known = np.flatnonzero(before >= 0)
        hidden[known] |= _behind(points_cam[known], points_cam[before[known]],
                                 normals_cam[before[known]])  # fmt: skip
    return hidden


def _cells(pixels: Matrix, camera: Camera, level: int) -> NDArray[np.int64]:
    columns = (camera.width >> level) + 2
    x, y = ((pixels + 0.5) / 2**level).astype(np.int64).T
    return y * columns + x


def _nearest_per_cell(
    cell: NDArray[np.int64], drawn: NDArray[np.intp], depth: Matrix
) -> NDArray[np.intp]:
    """For every cell number the drawn point of least depth, -1 where there is none."""
    nearest = np.full(int(cell.max()) + 1, -1, np.intp)
    far_to_near = drawn[np.argsort(-depth[drawn], kind="stable")]
    nearest[cell[far_to_near]] = far_to_near  # of several points in a cell the last one stays
    return nearest


def _behind(points: Matrix, before: Matrix, normals: Matrix) -> NDArray[np.bool_]:
    """Whether points (N, 3) are behind, and not on the surface element, of others (N, 3)."""
    tolerance_m = TOLERANCE_M + TOLERANCE_SHARE * before[:, 2]
    offset = points - before
    from_plane_m = np.abs((offset * normals).sum(-1))
    rise_m = tolerance_m + PLANE_SLOPE * np.linalg.norm(offset, axis=-1)
    on_plane = (from_plane_m < rise_m) & (np.abs(normals).sum(-1) > 0)
    return (offset[:, 2] > tolerance_m) & ~on_plane
