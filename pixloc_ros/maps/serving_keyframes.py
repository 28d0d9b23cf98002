"""Which keyframes serve a pose: those near it, and those that share points with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import Tile

METRES_PER_RADIAN = 10.0  # a keyframe turned by 6 degrees counts as one that is 1 m farther away
MAX_ANGLE_RAD = np.deg2rad(90.0)  # keyframes that look elsewhere have seen other things


@dataclass(frozen=True, slots=True)
class ServingKeyframes:
    """The keyframes (K,) whose points are considered at a pose."""

    index: NDArray[np.intp]
    tiles: dict[int, Tile]  # theirs, opened
    unavailable: list[int]  # tiles that would serve, but could not be opened


def serving_keyframes(
    map_: Map,
    T_map_cam: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
    condition: int,
) -> ServingKeyframes:
    """Choose among the keyframes near (ascending), and open their tiles."""
    unavailable: list[int] = []
    while True:
        keyframes = _of_conditions(map_, T_map_cam, near, config, condition)
        needed = np.unique(map_.keyframe_tile[keyframes]).tolist()
        tiles = map_.tiles.take(needed)
        if len(tiles) == len(needed):
            return ServingKeyframes(keyframes, tiles, unavailable)
        unavailable += [index for index in needed if index not in tiles]
        near = near[~np.isin(map_.keyframe_tile[near], unavailable)]


def choose_keyframes(
    map_: Map,
    T_map_cam: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
) -> NDArray[np.intp]:
    """At most config.keyframes of the keyframes near (ascending): half by pose, half by shared
    points."""
    distances, angles_rad = pose_distances(T_map_cam, map_.keyframe_T_map_cam[near])
    usable = angles_rad <= MAX_ANGLE_RAD
    near = near[usable]
    by_pose = np.argsort(distances[usable], kind="stable")[: (config.keyframes + 1) // 2]
    shared = _shared_points(map_, near, by_pose)
    covisible = np.argsort(-shared, kind="stable")[: config.keyframes - len(by_pose)]
    return near[np.concatenate([by_pose, covisible[shared[covisible] > 0]])]


def pose_distances(
    T_map_cam: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distances (M,) of camera poses (M, 4, 4) from one (4, 4), and the turns (M,) in rad.

    A distance is in metres, with METRES_PER_RADIAN for the turn: it says how much less two cameras
    have in view together.
    """
    distances_m = np.linalg.norm(others[:, :3, 3] - T_map_cam[:3, 3], axis=-1)
    angles_rad = se3.angles_rad(T_map_cam, others)
    return distances_m + METRES_PER_RADIAN * angles_rad, angles_rad


def _of_conditions(
    map_: Map,
    T_map_cam: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
    condition: int,
) -> NDArray[np.intp]:
    """The keyframes of the build near, which see all its points, and those of a condition."""
    if map_.keyframe_condition is None:
        return choose_keyframes(map_, T_map_cam, near, config)
    chosen = [
        choose_keyframes(map_, T_map_cam, near[map_.keyframe_condition[near] == one], config)
        for one in dict.fromkeys([condition, 0])
    ]
    return np.concatenate(chosen)


def _shared_points(
    map_: Map, near: NDArray[np.intp], chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """How many points each of the keyframes near shares with the chosen ones of them, 0 for these.

    chosen: indices into near, which ascends.
    """
    shared = np.zeros(len(near) + 1)  # the last one is for neighbours that are not near
    for keyframe in near[chosen]:
        part = slice(*map_.covisible_offsets[keyframe : keyframe + 2])
        neighbours = map_.covisible_keyframe[part]
        at = np.searchsorted(near, neighbours)
        at[near[np.minimum(at, len(near) - 1)] != neighbours] = len(near)
        shared[at] += map_.covisible_points[part]
    shared[chosen] = 0
    return shared[:-1]
