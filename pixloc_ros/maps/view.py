"""The part of a map that is worth aligning at a prior pose.

Keyframes near the prior and covisible ones give the candidate points; the prior tells which of
them can be in the image; a grid over the image spreads the choice. All of it is deterministic,
and small changes of the prior change little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps import occlusion
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import Tile, unit_rows

METRES_PER_RADIAN = 10.0  # a keyframe turned by 6 degrees counts as one that is 1 m farther away
MAX_ANGLE_RAD = np.deg2rad(90.0)  # keyframes that look elsewhere have seen other things
MARGIN_SHARE = 0.2  # of the image's size: the prior is not exact, points beside the image may be in
POINTS_PER_CELL = 4  # of the grid that spreads points over the image


@dataclass(frozen=True, slots=True)
class MapView:
    """Points and their reference features, on one device. N may be 0."""

    origin: NDArray[np.float64]  # (3,) map coordinates of the points' zero, near the prior
    points: Tensor  # (N, 3) float32 relative to origin
    point_ids: NDArray[np.int32]  # (N,) of the map
    features: tuple[Tensor, ...]  # (N, C) float32 of unit norm, coarse to fine
    confidences: tuple[Tensor, ...]  # (N,) float32, coarse to fine
    keyframes: tuple[str, ...]  # whose points were considered, most alike first
    nearest_m: float  # distance from the prior to the nearest keyframe
    missing: tuple[str, ...] = ()  # ids of tiles that would serve, but are not fetched yet

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class _Observations:
    """The observations (O,) of the chosen keyframes."""

    tile: NDArray[np.intp]  # index in the map
    row: NDArray[np.int32]  # in its tile
    keyframe: NDArray[np.intp]
    point_id: NDArray[np.int32]
    local: NDArray[np.float64]  # (O, 3) the point, relative to the view's origin
    priority: NDArray[np.float32]


def select_view(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    camera: Camera,
    config: ViewConfig,
    device: str = "cpu",
    point_ids: NDArray[np.int32] | None = None,
    condition: int = 0,
) -> MapView:
    """Choose points and their reference features for a prior camera pose (4, 4).

    point_ids: (N,) of the only points to choose from. The view is empty where there is no map.
    condition: whose observations of a point are preferred: `retrieval.most_alike_condition`.
    Keyframes of tiles that are refused, or not here, are passed over. The tiles around are opened
    ahead.
    """
    position = T_map_cam_prior[:3, 3]
    origin = np.round(position)
    near, nearest_m = map_.keyframes_within(position, config.max_distance_m)
    keyframes, tiles, passed = _serving_keyframes(map_, T_map_cam_prior, near, config, condition)
    map_.tiles.approach(position)
    missing = map_.tiles.missing_among(passed)
    if not len(keyframes):
        return replace(_empty(origin, nearest_m, map_.metadata.dims, device), missing=missing)
    observed = _observations(map_, keyframes, tiles, origin)
    first, point = _distinct(observed.point_id)
    pixels, visible = _project(observed.local[first], origin, T_map_cam_prior, camera)
    if config.cull_hidden and map_.keyframe_depth_m is not None:
        visible &= ~_hidden(map_, keyframes, observed.local[first], origin, T_map_cam_prior, camera)
    if point_ids is not None:
        visible &= np.isin(observed.point_id[first], point_ids)
    shown = np.flatnonzero(visible)
    preferred = _taken_in(map_, observed.keyframe, condition)
    best = _most_alike(map_, observed, point, shown, position - origin, origin, preferred, config)
    shown, number = np.unique(point[best], return_inverse=True)  # of the points that are alike
    spread = _spread(pixels[shown], observed.priority[first[shown]], camera, config)
    best = best[np.isin(number, spread)]
    features, confidences = _gather(map_, tiles, observed.tile[best], observed.row[best])
    return MapView(
        origin=origin,
        points=torch.from_numpy(observed.local[best].astype(np.float32)).to(device),
        point_ids=observed.point_id[best],
        features=tuple(rows.to(device) for rows in features),
        confidences=tuple(weights.to(device) for weights in confidences),
        keyframes=tuple(map_.keyframe_names[i] for i in keyframes),
        nearest_m=nearest_m,
        missing=missing,
    )


def _empty(
    origin: NDArray[np.float64], nearest_m: float, dims: Sequence[int], device: str
) -> MapView:
    return MapView(
        origin=origin,
        points=torch.zeros(0, 3, device=device),
        point_ids=np.zeros(0, np.int32),
        features=tuple(torch.zeros(0, dim, device=device) for dim in dims),
        confidences=tuple(torch.zeros(0, device=device) for _ in dims),
        keyframes=(),
        nearest_m=nearest_m,
    )


def _serving_keyframes(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
    condition: int,
) -> tuple[NDArray[np.intp], dict[int, Tile], list[int]]:
    """The chosen ones among those near, their tiles, opened, and the tiles that could not be."""
    passed: list[int] = []
    while True:
        keyframes = _of_conditions(map_, T_map_cam_prior, near, config, condition)
        needed = np.unique(map_.keyframe_tile[keyframes]).tolist()
        tiles = map_.tiles.take(needed)
        if len(tiles) == len(needed):
            return keyframes, tiles, passed
        passed += [index for index in needed if index not in tiles]
        near = near[~np.isin(map_.keyframe_tile[near], passed)]


def _of_conditions(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
    condition: int,
) -> NDArray[np.intp]:
    """The keyframes of the build near, which see all its points, and those of a condition."""
    if map_.keyframe_condition is None:
        return choose_keyframes(map_, T_map_cam_prior, near, config)
    chosen = [
        choose_keyframes(map_, T_map_cam_prior, near[map_.keyframe_condition[near] == one], config)
        for one in dict.fromkeys([condition, 0])
    ]
    return np.concatenate(chosen)


def _taken_in(map_: Map, keyframes: NDArray[np.intp], condition: int) -> NDArray[np.bool_]:
    """Which keyframes (N,) are of a condition; all of them where the map knows of none."""
    if map_.keyframe_condition is None:
        return np.ones(len(keyframes), bool)
    return map_.keyframe_condition[keyframes] == condition


def choose_keyframes(
    map_: Map,
    T_map_cam_prior: NDArray[np.float64],
    near: NDArray[np.intp],
    config: ViewConfig,
) -> NDArray[np.intp]:
    """At most config.keyframes of the keyframes near (ascending): half by pose, half by shared
    points."""
    unlikeness, angles_rad = pose_unlikeness(T_map_cam_prior, map_.keyframe_T_map_cam[near])
    usable = angles_rad <= MAX_ANGLE_RAD
    near = near[usable]
    by_pose = np.argsort(unlikeness[usable], kind="stable")[: (config.keyframes + 1) // 2]
    shared = _shared_points(map_, near, by_pose)
    covisible = np.argsort(-shared, kind="stable")[: config.keyframes - len(by_pose)]
    return near[np.concatenate([by_pose, covisible[shared[covisible] > 0]])]


def pose_unlikeness(
    T_map_cam: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How unlike what a camera (4, 4) sees is to what others (M, 4, 4) see, by their poses: metres
    between them plus METRES_PER_RADIAN for the turn; and the turns (rad)."""
    distances_m = np.linalg.norm(others[:, :3, 3] - T_map_cam[:3, 3], axis=-1)
    angles_rad = se3.angles_rad(T_map_cam, others)
    return distances_m + METRES_PER_RADIAN * angles_rad, angles_rad


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


def _observations(
    map_: Map, keyframes: NDArray[np.intp], tiles: dict[int, Tile], origin: NDArray[np.float64]
) -> _Observations:
    parts = [_observations_of(map_, keyframe, tiles, origin) for keyframe in keyframes.tolist()]
    return _Observations(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _observations_of(
    map_: Map, keyframe: int, tiles: dict[int, Tile], origin: NDArray[np.float64]
) -> tuple[NDArray, ...]:
    """Columns of `_Observations`."""
    index = int(map_.keyframe_tile[keyframe])
    tile = tiles[index]
    observations = tile.observations(keyframe)
    point = tile.observation_point[observations]
    to_local = np.array(map_.metadata.tiles[index].origin) - origin  # float64
    return (
        np.full(len(point), index),
        tile.observation_row[observations],
        np.full(len(point), keyframe),
        tile.point_id[point],
        tile.points[point] + to_local,
        tile.point_priority[point],
    )


def _distinct(ids: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of ids (O,), where each comes first, by ascending id, and which of these each one is.

    As np.unique tells, but faster.
    """
    order = np.argsort(ids, kind="stable")
    new = np.diff(ids[order], prepend=-1) > 0
    number = np.empty(len(ids), np.intp)
    number[order] = np.cumsum(new) - 1
    return order[new], number


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
    wide = _widened(camera)
    pixels, visible = wide.project(torch.from_numpy(points_cam))
    return pixels.numpy(), visible.numpy()


def _widened(camera: Camera) -> Camera:
    """The camera with a margin around its image."""
    size = camera.size.double().cpu()
    return camera.to("cpu", torch.float64).crop(
        (-MARGIN_SHARE * size).tolist(), ((1 + 2 * MARGIN_SHARE) * size).tolist()
    )


def _hidden(
    map_: Map,
    keyframes: NDArray[np.intp],
    local: NDArray[np.float64],
    origin: NDArray[np.float64],
    T_map_cam: NDArray[np.float64],
    camera: Camera,
) -> NDArray[np.bool_]:
    """(N,) which points are behind what the keyframes saw, from the prior."""
    assert map_.keyframe_depth_m is not None
    T_local_map = se3.make(np.eye(3), -origin)
    occluders = [
        occlusion.surfaces(
            map_.keyframe_depth_m[k],
            map_.metadata.cameras[map_.keyframe_camera[k]].camera(),
            T_local_map @ map_.keyframe_T_map_cam[k],
        )
        for k in keyframes
    ]
    T_cam_local = se3.inverse(T_local_map @ T_map_cam)
    return occlusion.hidden(local, occluders, T_cam_local, _widened(camera))


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
    observed: _Observations,
    point: NDArray[np.intp],
    shown: NDArray[np.intp],
    position: NDArray[np.float64],
    origin: NDArray[np.float64],
    preferred: NDArray[np.bool_],
    config: ViewConfig,
) -> NDArray[np.intp]:
    """The observations (R,) of shown points that look most as the points do from here, point by
    point, of each at most config.observations and none that is too unlike: angle between the two
    viewing rays (rad) plus the logarithm of the scale change.

    point, preferred: (O,) of the observations; preferred ones that are alike enough come first.
    """
    place = np.full(point.max(initial=-1) + 1, -1)
    place[shown] = np.arange(len(shown))
    at = place[point]
    considered = np.flatnonzero(at >= 0)
    at, local = at[considered], observed.local[considered]
    ray_then = local - (map_.keyframe_T_map_cam[observed.keyframe[considered], :3, 3] - origin)
    ray_now = local - position
    squared_then, squared_now = (ray_then**2).sum(-1), (ray_now**2).sum(-1)
    cos = (ray_then * ray_now).sum(-1) / np.sqrt(squared_then * squared_now)
    unlikeness = viewpoint_change(cos, squared_then / squared_now)
    too_unlike = unlikeness > config.max_viewpoint_change
    order = np.lexsort((unlikeness, ~preferred[considered] | too_unlike, at))
    rank = np.arange(len(order)) - np.searchsorted(at[order], at[order])
    chosen = order[(rank < config.observations) & ~too_unlike[order]]
    return considered[chosen]


def viewpoint_change(
    cosines: NDArray[np.float64], squared_ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How unlike a point looks from two places: the angle between the rays to it (rad) plus the
    logarithm of the change of scale.

    cosines: of the angles. squared_ratios: of the rays' lengths, squared.
    """
    return np.asarray(np.arccos(np.clip(cosines, -1, 1)) + np.abs(np.log(squared_ratios)) / 2)


def _gather(
    map_: Map, tiles: dict[int, Tile], tile_of_row: NDArray[np.intp], row: NDArray[np.int32]
) -> tuple[list[Tensor], list[Tensor]]:
    """Features (N, C) and confidences (N,) per level, float32, of rows (N,) of several tiles.

    They are where the tiles' rows are.
    """
    order = np.argsort(tile_of_row, kind="stable")  # tile by tile; `back` undoes it
    place = next(iter(tiles.values())).confidences[0].device
    back = torch.from_numpy(np.argsort(order)).to(place, non_blocking=True)
    picked = [
        (tile, torch.from_numpy(row[tile_of_row == index]).to(place, non_blocking=True))
        for index, tile in sorted(tiles.items())
    ]
    features, confidences = [], []
    for level in range(len(map_.metadata.dims)):
        rows = torch.cat([tile.features[level][index] for tile, index in picked])
        features.append(unit_rows(rows[back]))
        weights = torch.cat([tile.confidences[level][index] for tile, index in picked])
        confidences.append(weights[back].float())
    return features, confidences
