"""Which keyframes of those near a prior pose to take points from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig

if TYPE_CHECKING:
    from pixloc_ros.maps.map import Map

METRES_PER_RADIAN = 10.0  # a keyframe turned by 6 degrees counts as one that is 1 m farther away
MAX_ANGLE_RAD = np.deg2rad(90.0)  # keyframes that look elsewhere have seen other things


def choose_keyframes(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
) -> NDArray[np.intp]:
    """At most config.keyframes of the keyframes near (ascending): half by pose, half by shared
    points."""
    T_map_cam = map_.keyframe_T_map_cam[near]
    distances_m = np.linalg.norm(T_map_cam[:, :3, 3] - T_map_cam_prior[:3, 3], axis=-1)
    R_cam_map = T_map_cam_prior[:3, :3].T
    traces = np.einsum("ij,mji->m", R_cam_map, T_map_cam[:, :3, :3])
    angles_rad = np.arccos(np.clip((traces - 1) / 2, -1, 1))
    usable = angles_rad <= MAX_ANGLE_RAD
    near = near[usable]
    unlikeness = (distances_m + METRES_PER_RADIAN * angles_rad)[usable]
    by_pose = np.argsort(unlikeness, kind="stable")[: (config.keyframes + 1) // 2]
    shared = _shared_points(map_, near, by_pose)
    covisible = np.argsort(-shared, kind="stable")[: config.keyframes - len(by_pose)]
    return near[np.concatenate([by_pose, covisible[shared[covisible] > 0]])]


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
