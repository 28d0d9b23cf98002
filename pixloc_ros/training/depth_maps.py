"""Depth maps of posed images: each pixel with a depth is a point that a pair may share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.rays import rays
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.depth_images import usable
from pixloc_ros.maps.files.hloc import import_h5py

DATASET = "depth"  # name in MegaDepth's files
AGREEMENT = 0.05  # relative; a point this much behind the query's depth map is hidden there
SAME_SHAPE = 0.01  # by which the scales of width and height may differ

Depth = NDArray[np.float32]  # (H, W) along the optical axis, 0 where unknown


@dataclass(frozen=True, slots=True)
class DepthMap:
    """Measured depth (H, W), and the camera in pixels of this map."""

    depth: Depth
    camera: Camera


def read_depth(path: Path, camera: Camera, turns: int = 0) -> DepthMap:
    """Read the data set `depth` of an HDF5 file, rotated counter-clockwise by quarter turns.

    camera: of the rotated image, whose size may differ from the map's.
    turns: number of quarter turns.

    Raises DataError for an unreadable file and for a map of another shape.
    """
    h5py = import_h5py()
    with refusing(DataError, path), h5py.File(path) as file:
        if DATASET not in file:
            raise DataError(f"{path} has no data set '{DATASET}': is it a depth map of MegaDepth?")
        depth = np.rot90(np.asarray(file[DATASET], np.float32), turns)
    if depth.ndim != 2:
        raise DataError(f"{path}: a depth map is (H, W), got {depth.shape}")
    factors = np.array([depth.shape[1] / camera.width, depth.shape[0] / camera.height])
    if abs(factors[0] / factors[1] - 1) > SAME_SHAPE:
        size = f"{camera.width}x{camera.height}"
        raise DataError(f"{path}: {depth.shape[1]}x{depth.shape[0]} pixels do not show {size}")
    return DepthMap(np.ascontiguousarray(depth), camera.scale(factors.tolist()))


def common_points(
    reference: DepthMap,
    query: DepthMap,
    T_query_reference: Matrix,
    count: int,
    rng: np.random.Generator,
) -> tuple[Matrix, Matrix]:
    """Return points (M, 3) that both maps show, in the reference's and in the query's frame.

    They come from `count` pixels of the reference, drawn uniformly, that are in view of the query
    at about the depth of its map. Pixels at edges of surfaces yield no points.
    """
    row, column = np.nonzero(usable(reference.depth.astype(np.float64), np.inf))
    drawn = rng.permutation(len(row))[:count]
    row, column = row[drawn], column[drawn]
    pixels = np.column_stack([column, row]).astype(np.float64)
    points = rays(pixels, reference.camera) * reference.depth[row, column][:, None]
    in_query = se3.transform(T_query_reference, points)
    projected, valid = query.camera.project(torch.from_numpy(in_query))
    shown = valid.numpy()
    column, row = np.round(projected.numpy()[shown]).astype(int).T
    measured = query.depth[row, column]
    agrees = np.abs(measured - in_query[shown, 2]) < AGREEMENT * measured
    return points[shown][agrees], in_query[shown][agrees]
