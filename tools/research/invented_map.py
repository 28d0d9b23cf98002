"""Synthetic maps of any size: random points and features along a road, written tile by tile.

The road runs to and fro in parallel streets, so the map grows in both directions. The content of a
stretch of road depends only on its number: it is the same in every tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.spatial.transform import Rotation

from pixloc_ros.features.pyramid import MAX_SIDE_PX
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.feature_store import Arrays, covisibility_arrays
from pixloc_ros.maps.map import pack_names
from pixloc_ros.maps.schema import ROW_TYPE, TILE_M, CameraEntry, RowType
from pixloc_ros.maps.tiles import Tile

STREET_M, APART_M = 1000.0, 100.0  # length of a street, and distance to the next
STRETCH_M = 3.0  # of road from one keyframe to the next
NEAREST, FARTHEST = 2, 10  # stretches ahead whose points a keyframe sees
CAMERA_UP_M = 1.6
BESIDE_M, ABOVE_M = (4.0, 12.0), (0.0, 8.0)  # where points are, seen from the road
CAMERA = Camera.create("PINHOLE", [1241, 376], [718.9, 718.9], [607.2, 185.2])


@dataclass(frozen=True, slots=True)
class InventedMap:
    """What to write. Defaults resemble a map of KITTI, one row per point."""

    points: int
    points_per_m: float = 74.0
    dims: tuple[int, ...] = (128, 64, 32)
    strides: tuple[int, ...] = (16, 4, 2)
    descriptor: int = 1024
    tile_m: float = TILE_M
    row_type: RowType = ROW_TYPE
    model_id: str = "invented"
    weights_sha256: str = "0" * 64

    @property
    def per_stretch(self) -> int:
        return round(self.points_per_m * STRETCH_M)

    @property
    def stretches(self) -> int:
        """No keyframe sees the first NEAREST stretches, nor the last one."""
        return max(FARTHEST + 1, self.points // self.per_stretch) + NEAREST + 1

    @property
    def keyframes(self) -> int:
        """One at the start of each stretch with enough road ahead."""
        return self.stretches - FARTHEST

    @property
    def length_km(self) -> float:
        return self.stretches * STRETCH_M / 1000


def write_invented_map(what: InventedMap, output: str | Path) -> str:
    """Write the map in bounded memory, replacing an existing one; return its SHA-256."""
    arrays: Arrays = {
        "keyframe_T_map_cam": camera_poses(np.arange(what.keyframes)),
        "keyframe_names": pack_names([f"{i:07d}" for i in range(what.keyframes)]),
        "keyframe_camera": np.zeros(what.keyframes, np.int32),
        "keyframe_descriptors": _descriptors(what),
        **covisibility_arrays(_shared(what)),
    }
    with writer.writing(arrays, _metadata(what), output, overwrite=True) as (cells, tiles):
        for cell, keyframes in cells.items():
            tiles.add(cell, _tile(what, keyframes))
    return tiles.sha256


def camera_poses(stretch: NDArray) -> NDArray[np.float64]:
    """Return T_map_cam (N, 4, 4) at the beginnings of stretches of road (N,), looking along it."""
    along_m = stretch * STRETCH_M
    street = np.floor(along_m / STREET_M)
    back = street % 2 == 1
    on_street_m = along_m - street * STREET_M
    x = np.where(back, STREET_M - on_street_m, on_street_m)
    yaw = Rotation.from_rotvec(np.where(back, np.pi, 0.0)[:, None] * [0, 0, 1])
    T_map_base = np.tile(np.eye(4), (len(stretch), 1, 1))
    T_map_base[:, :3, :3] = yaw.as_matrix()
    T_map_base[:, :3, 3] = np.column_stack(
        [x, street * APART_M, np.full(len(stretch), CAMERA_UP_M)]
    )
    return T_map_base @ se3.base_from_optical()


def _tile(what: InventedMap, keyframes: NDArray[np.intp]) -> Tile:
    """One row per point, as in maps of averaged features."""
    offsets = np.arange(NEAREST, FARTHEST)
    stretches = np.unique(keyframes[:, None] + offsets)
    number = np.arange(what.per_stretch)
    seen = np.searchsorted(stretches, keyframes[:, None] + offsets)
    point = (seen[..., None] * what.per_stretch + number).reshape(-1).astype(np.int32)
    points, features = zip(*(_stretch(what, int(i)) for i in stretches), strict=True)
    rows = torch.cat(features)
    return Tile(
        keyframes=keyframes.astype(np.int32),
        observation_offsets=np.arange(len(keyframes) + 1) * seen.shape[1] * what.per_stretch,
        observation_point=point,
        observation_row=point.copy(),
        point_id=(stretches[:, None] * what.per_stretch + number).reshape(-1).astype(np.int32),
        points=np.concatenate(points),
        point_error_px=np.full(len(rows), -1, np.float32),
        point_priority=np.full(len(rows), 0.5, np.float32),
        point_depth_sigma=np.zeros(len(rows), np.float32),
        features=tuple(torch.nn.functional.normalize(r, dim=-1) for r in rows.split(what.dims, 1)),
        confidences=tuple(torch.full((len(rows),), 0.5).half() for _ in what.dims),
        origin=np.zeros(3),
    )


def _stretch(what: InventedMap, index: int) -> tuple[NDArray[np.float64], torch.Tensor]:
    """Points (N, 3) in the map and their rows (N, all dims) of a stretch of road."""
    rng = np.random.default_rng(index)
    ahead = rng.uniform(0, STRETCH_M, what.per_stretch)
    side = rng.choice([-1, 1], what.per_stretch) * rng.uniform(*BESIDE_M, what.per_stretch)
    up = rng.uniform(*ABOVE_M, what.per_stretch) - CAMERA_UP_M
    T_map_base = camera_poses(np.array([index]))[0] @ se3.inverse(se3.base_from_optical())
    points = se3.transform(T_map_base, np.column_stack([ahead, side, up]))
    rows = rng.standard_normal((what.per_stretch, sum(what.dims)), np.float32)
    return points, torch.from_numpy(rows)


def _shared(what: InventedMap) -> csr_array:
    """Points that two keyframes share: those of the stretches that both see."""
    width = FARTHEST - NEAREST
    steps = [step for step in range(1 - width, width) if step and abs(step) < what.keyframes]
    counts = [
        np.full(what.keyframes - abs(step), (width - abs(step)) * what.per_stretch, np.int32)
        for step in steps
    ]
    return csr_array(diags_array(counts, offsets=steps, dtype=np.int32))


def _descriptors(what: InventedMap) -> NDArray[np.float16]:
    rows = np.random.default_rng(0).standard_normal((what.keyframes, what.descriptor), np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _metadata(what: InventedMap) -> dict[str, object]:
    return {
        "axes": "keep",
        "T_map_world": tuple(np.eye(4).ravel().tolist()),
        "T_base_cam": tuple(se3.base_from_optical().ravel().tolist()),
        "model_id": what.model_id,
        "weights_sha256": what.weights_sha256,
        "max_side_px": MAX_SIDE_PX,
        "strides": what.strides,
        "dims": what.dims,
        "storage": "averaged",
        "tile_m": what.tile_m,
        "row_type": what.row_type,
        "cameras": (CameraEntry.of(CAMERA),),
    }
