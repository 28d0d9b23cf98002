"""What hides points from a prior pose: coarse depth images that keyframes of dense maps carry.

A view has too few points to tell surfaces from gaps between them. So each keyframe keeps the depth
of what it saw in a coarse grid; its cells become small surfaces, drawn into a grid over the image
of the prior. All choices err on the side of seeing: a hidden point is an outlier to the aligner,
a visible one that is left out is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.rays import AHEAD, rays
from pixloc_ros.geometry.se3 import Matrix

GRID = (32, 48)  # rows and columns of cells
TOLERANCE_M, TOLERANCE_SHARE = 0.3, 0.03  # of depth, by which a point may be behind a surface
CLOSES_SHARE = 0.5  # of the size of a cell of the image, that a surface must look like to fill it
LEAST_M = 1e-3  # of a depth, to divide by
EDGE_RATIO = 1.3  # of depths of neighbouring cells that makes an edge, which hides nothing


def depth_grid(pixels: Matrix, depths_m: Matrix, camera: Camera) -> NDArray[np.float16]:
    """The farthest depth (GRID) that is seen in each cell of an image, 0 where nothing is.

    pixels (N, 2), depths_m (N,): of visible points, dense enough that cells have several.
    """
    farthest = np.zeros(GRID[0] * GRID[1])
    np.maximum.at(farthest, _cell(pixels, camera), depths_m)
    return farthest.reshape(GRID).astype(np.float16)


def _cell(pixels: Matrix, camera: Camera) -> NDArray[np.intp]:
    """Numbers (N,) of the cells of an image that pixels (N, 2) are in."""
    share = (pixels + 0.5) / (camera.width, camera.height)
    column, row = np.clip(share * GRID[::-1], 0, np.array(GRID[::-1]) - 1).astype(np.intp).T
    return row * GRID[1] + column


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Cells of keyframes as small surfaces."""

    points: Matrix  # (S, 3) their centres
    width_m: Matrix  # (S,) across the line of sight
    slack_m: Matrix  # (S,) half of what they extend along it


SIZES = ("width_m", "slack_m")


def surfaces(depth_m: NDArray[np.float16], camera: Camera, T_local_cam: Matrix) -> Surfaces:
    """The cells (GRID) of one keyframe that are not at an edge; none of a fisheye."""
    if camera.model not in AHEAD:
        depth_m = np.zeros_like(depth_m)
    depth = depth_m.astype(np.float64)
    slack = _rise(depth)
    row, column = np.nonzero((depth > 0) & np.isfinite(slack))
    pixels = np.column_stack(
        [(column + 0.5) / GRID[1] * camera.width, (row + 0.5) / GRID[0] * camera.height]
    )
    fx, fy = camera.focal.tolist()
    z = depth[row, column]
    centres_cam = rays(pixels - 0.5, camera) * z[:, None]
    width = min(camera.width / GRID[1] / fx, camera.height / GRID[0] / fy)
    return Surfaces(se3.transform(T_local_cam, centres_cam), width * z, slack[row, column])


def _rise(depth: Matrix) -> Matrix:
    """(GRID) largest difference of depth to the four neighbours; inf at edges and holes."""
    padded = np.pad(depth, 1, mode="edge")
    shifted = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    ratio = np.maximum(shifted, depth) / np.maximum(np.minimum(shifted, depth), LEAST_M)
    return np.where((ratio < EDGE_RATIO).all(0), np.abs(shifted - depth).max(0), np.inf)


def hidden(
    points: Matrix, surfaces_before: Sequence[Surfaces], T_cam_local: Matrix, camera: Camera
) -> NDArray[np.bool_]:
    """(N,) which points (N, 3) are in the image and behind the surfaces."""
    if not surfaces_before:
        return np.zeros(len(points), bool)
    centres = se3.transform(T_cam_local, np.concatenate([s.points for s in surfaces_before]))
    width_m, slack_m = (np.concatenate([getattr(s, f) for s in surfaces_before]) for f in SIZES)
    pixels, in_image = _project(centres, camera)
    # A surface that looks smaller than a cell does not close it.
    cell_px = max(camera.width / GRID[1], camera.height / GRID[0])
    width_px = width_m * float(camera.focal.mean()) / np.maximum(centres[:, 2], LEAST_M)
    use = in_image & (width_px > CLOSES_SHARE * cell_px)
    behind_m = centres[:, 2] * (1 + TOLERANCE_SHARE) + TOLERANCE_M + slack_m
    nearest_m = np.full(GRID[0] * GRID[1], np.inf)
    np.minimum.at(nearest_m, _cell(pixels[use], camera), behind_m[use])
    points_cam = se3.transform(T_cam_local, points)
    pixels, in_image = _project(points_cam, camera)
    return in_image & (points_cam[:, 2] > nearest_m[_cell(pixels, camera)])


def _project(points_cam: Matrix, camera: Camera) -> tuple[Matrix, NDArray[np.bool_]]:
    pixels, in_image = camera.project(torch.from_numpy(points_cam))
    return np.nan_to_num(pixels.numpy()), in_image.numpy()
