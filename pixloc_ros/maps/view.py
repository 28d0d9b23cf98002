"""The part of a map that is worth aligning at a prior pose.

Keyframes near the prior and covisible ones give the candidate points; the prior tells which of
them can be in the image; a grid over the image spreads the choice. All of it is deterministic,
and small changes of the prior change little of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera

if TYPE_CHECKING:
    from pixloc_ros.maps.store import Map

MARGIN_SHARE = 0.2  # of the image's size: the prior is not exact, points beside the image may be in
METRES_PER_RADIAN = 10.0  # a keyframe turned by 6 degrees counts as one that is 1 m farther away
MAX_ANGLE_RAD = np.deg2rad(90.0)  # keyframes that look elsewhere have seen other things
POINTS_PER_CELL = 4  # of the grid that spreads points over the image


@dataclass(frozen=True, slots=True)
class MapView:
    """Points and their reference features, on one device. N may be 0."""

    origin: NDArray[np.float64]  # (3,) map coordinates of the points' zero, near the prior
    points: Tensor  # (N, 3) float32 relative to origin
    features: tuple[Tensor, ...]  # (N, C) float32 of unit norm, coarse to fine
    confidences: tuple[Tensor, ...]  # (N,) float32, coarse to fine
    keyframes: tuple[str, ...]  # whose points were considered, most alike first
    nearest_m: float  # distance from the prior to the nearest keyframe

    def __len__(self) -> int:
        return len(self.points)


def select(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    camera: Camera,
    config: ViewConfig,
    device: str = "cpu",
) -> MapView:
    """Choose points and rows for a prior camera pose (4, 4). Empty where there is no map."""
    position = T_map_cam_prior[:3, 3]
    distances_m = np.linalg.norm(map_.keyframe_T_map_cam[:, :3, 3] - position, axis=-1)
    keyframes = choose_keyframes(map_, T_map_cam_prior, distances_m, config)
    points, observations = _candidates(map_, keyframes)
    origin = np.round(position)
    local = map_.points[points] + (map_.origin - origin)  # float64
    pixels, visible = _project(local, origin, T_map_cam_prior, camera)
    shown = np.flatnonzero(visible)
    kept = shown[_spread(pixels[shown], map_.point_priority[points[shown]], camera, config)]
    rows = _most_alike(map_, observations, points[kept], local[kept], position - origin, origin)
    return MapView(
        origin=origin,
        points=torch.from_numpy(local[kept].astype(np.float32)).to(device),
        features=tuple(_gather(f, rows, device) for f in map_.features),
        confidences=tuple(_gather(c, rows, device) for c in map_.confidences),
        keyframes=tuple(map_.keyframe_names[i] for i in keyframes),
        nearest_m=float(distances_m.min()),
    )


def choose_keyframes(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    distances_m: NDArray[np.float64],
    config: ViewConfig,
) -> NDArray[np.intp]:
    """Indices of at most config.keyframes keyframes: half by pose, half by shared points."""
    R_cam_map = T_map_cam_prior[:3, :3].T
    traces = np.einsum("ij,mji->m", R_cam_map, map_.keyframe_T_map_cam[:, :3, :3])
    angles_rad = np.arccos(np.clip((traces - 1) / 2, -1, 1))
    unusable = (distances_m > config.max_distance_m) | (angles_rad > MAX_ANGLE_RAD)
    unlikeness = np.where(unusable, np.inf, distances_m + METRES_PER_RADIAN * angles_rad)
    by_pose = np.argsort(unlikeness, kind="stable")[: (config.keyframes + 1) // 2]
    by_pose = by_pose[np.isfinite(unlikeness[by_pose])]
    shared = np.zeros(len(unlikeness))
    for keyframe in by_pose:
        part = slice(*map_.covisible_offsets[keyframe : keyframe + 2])
        shared[map_.covisible_keyframe[part]] += map_.covisible_points[part]
    shared[by_pose] = 0
    shared[unusable] = 0
    covisible = np.argsort(-shared, kind="stable")[: config.keyframes - len(by_pose)]
    return np.concatenate([by_pose, covisible[shared[covisible] > 0]])


def _candidates(
    map_: Map, keyframes: NDArray[np.intp]
) -> tuple[NDArray[np.int32], tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Points that the keyframes see, once each, and all their observations with the keyframe."""
    offsets = map_.observation_offsets
    parts = [np.arange(offsets[k], offsets[k + 1]) for k in keyframes] or [np.arange(0)]
    observations = np.concatenate(parts)
    owners = np.repeat(keyframes, [len(part) for part in parts][: len(keyframes)])
    return _distinct(map_.observation_point[observations]), (observations, owners)


def _distinct(indices: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each index once, ascending; ten times faster than np.unique with its hash table."""
    ordered = np.sort(indices)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _project(
    local: NDArray[np.float64],
    origin: NDArray[np.float64],
    T_map_cam: NDArray[np.float64],
    camera: Camera,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels (N, 2) of the widened image, and which points are in it."""
    T_local_cam = T_map_cam.copy()
    T_local_cam[:3, 3] -= origin
    points_cam = se3.transform(se3.inverse(T_local_cam), local)
    size = camera.size.double().cpu()
    wide = camera.to("cpu", torch.float64).crop(
        (-MARGIN_SHARE * size).tolist(), ((1 + 2 * MARGIN_SHARE) * size).tolist()
    )
    pixels, visible = wide.project(torch.from_numpy(points_cam))
    return pixels.numpy(), visible.numpy()


def _spread(
    pixels: NDArray[np.float64],
    priority: NDArray[np.float32],
    camera: Camera,
    config: ViewConfig,
) -> NDArray[np.intp]:
    """Indices of at most max_points points: the best of every grid cell, then the second best..."""
    if len(pixels) <= config.max_points:
        return np.arange(len(pixels))
    area_px = camera.width * camera.height * (1 + 2 * MARGIN_SHARE) ** 2
    side_px = np.sqrt(area_px * POINTS_PER_CELL / config.max_points)
    column, line = (pixels // side_px).astype(np.int64).T
    cell = line * (column.max() + 1) + column
    urgency = 1.0 - np.clip(priority, 0.0, 0.999)  # in (0, 1]: one sort by cell, then priority
    order = np.argsort(cell + urgency)
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return np.sort(np.argsort(rank + urgency)[: config.max_points])


def _most_alike(
    map_: Map,
    observations: tuple[NDArray[np.intp], NDArray[np.intp]],
    points: NDArray[np.int32],
    local: NDArray[np.float64],
    position: NDArray[np.float64],
    origin: NDArray[np.float64],
) -> NDArray[np.int32]:
    """The feature row (N,) of each point, seen from where it looks most as it does from here.

    Unlikeness: angle between the two viewing rays (rad) plus the logarithm of the scale change.
    """
    index, owners = observations
    at = np.searchsorted(points, map_.observation_point[index])
    mine = at < len(points)
    mine[mine] = points[at[mine]] == map_.observation_point[index[mine]]
    index, owners, at = index[mine], owners[mine], at[mine]
    ray_then = local[at] - (map_.keyframe_T_map_cam[owners, :3, 3] - origin)
    ray_now = (local - position)[at]
    range_then, range_now = (np.linalg.norm(ray, axis=-1) for ray in (ray_then, ray_now))
    cos = (ray_then * ray_now).sum(-1) / (range_then * range_now)
    unlikeness = np.arccos(np.clip(cos, -1, 1)) + np.abs(np.log(range_then / range_now))
    order = np.lexsort((unlikeness, at))
    first = np.searchsorted(at[order], np.arange(len(points)))
    return map_.observation_row[index[order[first]]]


def _gather(rows_of_map: Tensor, rows: NDArray[np.int32], device: str) -> Tensor:
    return rows_of_map[torch.from_numpy(rows)].to(device).float()
