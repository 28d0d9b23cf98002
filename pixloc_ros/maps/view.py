"""The part of a map that is worth aligning at a prior pose.

The keyframes that serve the prior give the candidate points; the prior tells which of them can be
in the image; a grid over the image spreads the choice. All of it is deterministic,
and small changes of the prior change little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps import occlusion
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.serving_keyframes import ServingKeyframes, serving_keyframes
from pixloc_ros.maps.tiles import Tile, unit_rows

MARGIN_SHARE = 0.2  # of the image's size: the prior is not exact, points beside the image may be in
POINTS_PER_CELL = 4  # of the grid that spreads points over the image


@dataclass(frozen=True, slots=True)
class FurtherObservations:
    """The fine features that further keyframes have of some points of a view, on its device."""

    of: Tensor  # (M,) rows of the view, with these points
    features: Tensor  # (M, C) float32 of unit norm
    confidences: Tensor  # (M,) float32


@dataclass(frozen=True, slots=True)
class MapView:
    """Points and their reference features, on one device. N may be 0."""

    origin: NDArray[np.float64]  # (3,) map coordinates of the points' zero, near the prior
    points: Tensor  # (N, 3) float32 relative to origin
    point_ids: NDArray[np.int32]  # (N,) of the map
    features: tuple[Tensor, ...]  # (N, C) float32 of unit norm, coarse to fine
    confidences: tuple[Tensor, ...]  # (N,) float32, coarse to fine
    keyframes: tuple[str, ...]  # whose points were considered, the nearest by pose first
    nearest_m: float  # distance from the prior to the nearest keyframe
    missing: tuple[str, ...] = ()  # ids of tiles that would serve, but are not fetched yet
    further: FurtherObservations | None = None  # for the refinement of a pose
    # (N, 3) one standard deviation of each point along the ray of its reference keyframe
    depth_errors: Tensor | None = None  # None where no point's is known

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class _Viewpoint:
    """A camera at the prior: its pose relative to the view's origin, and its image, widened."""

    origin: NDArray[np.float64]  # (3,) map coordinates
    T_local_cam: NDArray[np.float64]  # (4, 4)
    wide: Camera  # with a margin around the image

    @classmethod
    def of(cls, T_map_cam: NDArray[np.float64], camera: Camera) -> _Viewpoint:
        origin, T_local_cam = np.round(T_map_cam[:3, 3]), T_map_cam.copy()
        T_local_cam[:3, 3] -= origin
        size = camera.size.double().cpu()
        wide = camera.to("cpu", torch.float64).crop(
            (-MARGIN_SHARE * size).tolist(), ((1 + 2 * MARGIN_SHARE) * size).tolist()
        )
        return cls(origin, T_local_cam, wide)

    def project(self, local: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pixels (N, 2) of points (N, 3) in the widened image, and which points are in it."""
        points_cam = se3.transform(se3.inverse(self.T_local_cam), local)
        pixels, visible = self.wide.project(torch.from_numpy(points_cam))
        return pixels.numpy(), visible.numpy()


@dataclass(frozen=True, slots=True)
class _Observations:
    """The observations (O,) of the chosen keyframes."""

    tile: NDArray[np.intp]  # index in the map
    row: NDArray[np.int32]  # in its tile
    keyframe: NDArray[np.intp]
    point_id: NDArray[np.int32]
    local: NDArray[np.float64]  # (O, 3) the point, relative to the view's origin
    priority: NDArray[np.float32]
    depth_sigma: NDArray[np.float32]


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
    near, nearest_m = map_.keyframes_within(position, config.max_distance_m)
    serving = serving_keyframes(map_, T_map_cam_prior, near, config, condition)
    map_.tiles.approach(position)
    missing = map_.tiles.missing_among(serving.unavailable)
    viewpoint = _Viewpoint.of(T_map_cam_prior, camera)
    if not len(serving.index):
        return _empty(viewpoint.origin, nearest_m, missing, map_.metadata.dims, device)
    observed = _observations(map_, serving, viewpoint.origin)
    visible = _visible_points(map_, serving, observed, viewpoint, config, point_ids)
    chosen = _choose(map_, observed, visible, viewpoint, camera, config, condition)
    levels = range(len(map_.metadata.dims))
    features, confidences = _gather(serving.tiles, observed, chosen.best, levels)
    return MapView(
        origin=viewpoint.origin,
        points=torch.from_numpy(observed.local[chosen.best].astype(np.float32)).to(device),
        point_ids=observed.point_id[chosen.best],
        features=tuple(rows.to(device) for rows in features),
        confidences=tuple(weights.to(device) for weights in confidences),
        keyframes=tuple(map_.keyframe_names[i] for i in serving.index),
        nearest_m=nearest_m,
        missing=missing,
        further=_further(serving.tiles, observed, chosen.further, chosen.further_of, device),
        depth_errors=_depth_errors(map_, observed, chosen.best, viewpoint.origin, device),
    )


@dataclass(frozen=True, slots=True)
class _VisiblePoints:
    """The distinct points (P,) of some observations (O,), and which of them may be in the image."""

    point: NDArray[np.intp]  # (O,) the point of each observation, 0..P-1
    first: NDArray[np.intp]  # (P,) the first observation of each point
    pixels: NDArray[np.float64]  # (P, 2) in the widened image
    index: NDArray[np.intp]  # of the points that may be in the image


def _visible_points(
    map_: Map,
    serving: ServingKeyframes,
    observed: _Observations,
    viewpoint: _Viewpoint,
    config: ViewConfig,
    point_ids: NDArray[np.int32] | None,
) -> _VisiblePoints:
    first, point = _distinct(observed.point_id)
    pixels, visible = viewpoint.project(observed.local[first])
    if config.cull_hidden and map_.keyframe_depth_m is not None:
        visible &= ~_hidden(map_, serving.index, observed.local[first], viewpoint)
    if point_ids is not None:
        visible &= np.isin(observed.point_id[first], point_ids)
    return _VisiblePoints(point, first, pixels, np.flatnonzero(visible))


@dataclass(frozen=True, slots=True)
class _ChosenObservations:
    """Indices of observations: the best of each point of a view, and further ones."""

    best: NDArray[np.intp]  # (N,)
    further: NDArray[np.intp]  # (M,)
    further_of: NDArray[np.intp]  # (M,) rows of the best ones, of the same points


def _choose(
    map_: Map,
    observed: _Observations,
    visible: _VisiblePoints,
    viewpoint: _Viewpoint,
    camera: Camera,
    config: ViewConfig,
    condition: int,
) -> _ChosenObservations:
    """Choose points spread over the image, and the observations most like what it shows."""
    point = visible.point
    preferred = _of_condition(map_, observed.keyframe, condition)
    usable, rank = _similar_viewpoints(
        map_, observed, point, visible.index, viewpoint, preferred, config
    )
    points, number = np.unique(point[usable], return_inverse=True)
    priority = observed.priority[visible.first[points]]
    spread = _spread(visible.pixels[points], priority, camera, config)
    chosen, is_further = np.isin(number, spread), rank >= config.observations
    best, further = usable[chosen & ~is_further], usable[chosen & is_further]
    return _ChosenObservations(best, further, np.searchsorted(point[best], point[further]))


def _depth_errors(
    map_: Map,
    observed: _Observations,
    chosen: NDArray[np.intp],
    origin: NDArray[np.float64],
    device: str,
) -> Tensor | None:
    """One standard deviation (N, 3) of the chosen observations' points along their rays."""
    sigma = observed.depth_sigma[chosen, None]
    if not sigma.any():
        return None
    centers = map_.keyframe_T_map_cam[observed.keyframe[chosen], :3, 3] - origin
    errors = sigma * (observed.local[chosen] - centers)
    return torch.from_numpy(errors.astype(np.float32)).to(device)


def _empty(
    origin: NDArray[np.float64],
    nearest_m: float,
    missing: tuple[str, ...],
    dims: Sequence[int],
    device: str,
) -> MapView:
    return MapView(
        origin=origin,
        points=torch.zeros(0, 3, device=device),
        point_ids=np.zeros(0, np.int32),
        features=tuple(torch.zeros(0, dim, device=device) for dim in dims),
        confidences=tuple(torch.zeros(0, device=device) for _ in dims),
        keyframes=(),
        nearest_m=nearest_m,
        missing=missing,
    )


def _of_condition(map_: Map, keyframes: NDArray[np.intp], condition: int) -> NDArray[np.bool_]:
    """Which keyframes (N,) are of a condition; all of them where the map knows of none."""
    if map_.keyframe_condition is None:
        return np.ones(len(keyframes), bool)
    return map_.keyframe_condition[keyframes] == condition


def _observations(
    map_: Map, serving: ServingKeyframes, origin: NDArray[np.float64]
) -> _Observations:
    parts = [_observations_of(map_, k, serving.tiles, origin) for k in serving.index.tolist()]
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
        tile.point_depth_sigma[point],
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


def _hidden(
    map_: Map,
    keyframes: NDArray[np.intp],
    local: NDArray[np.float64],
    viewpoint: _Viewpoint,
) -> NDArray[np.bool_]:
    """(N,) which points are behind what the keyframes saw, from the prior."""
    assert map_.keyframe_depth_m is not None
    T_local_map = se3.make(np.eye(3), -viewpoint.origin)
    occluders = [
        occlusion.surfaces(
            map_.keyframe_depth_m[k],
            map_.metadata.cameras[map_.keyframe_camera[k]].camera(),
            T_local_map @ map_.keyframe_T_map_cam[k],
        )
        for k in keyframes
    ]
    T_cam_local = se3.inverse(viewpoint.T_local_cam)
    return occlusion.hidden(local, occluders, T_cam_local, viewpoint.wide)


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


def _similar_viewpoints(
    map_: Map,
    observed: _Observations,
    point: NDArray[np.intp],
    visible: NDArray[np.intp],
    viewpoint: _Viewpoint,
    preferred: NDArray[np.bool_],
    config: ViewConfig,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the observations (R,) of visible points with the smallest `viewpoint_change`.

    They are in the order of the points, of each as many as are ever used, and none beyond
    `max_viewpoint_change`; those for the refinement only are within `max_refinement_ratio` of the
    first one. Also returns the rank (R,) of each among those of its point, from 0.

    point, preferred: (O,) of the observations; preferred ones within the limit come first.
    """
    place = np.full(point.max(initial=-1) + 1, -1)
    place[visible] = np.arange(len(visible))
    at = place[point]
    considered = np.flatnonzero(at >= 0)
    at, local = at[considered], observed.local[considered]
    then_map = map_.keyframe_T_map_cam[observed.keyframe[considered], :3, 3]
    ray_then = local - (then_map - viewpoint.origin)
    ray_now = local - viewpoint.T_local_cam[:3, 3]
    squared_then, squared_now = (ray_then**2).sum(-1), (ray_now**2).sum(-1)
    cos = (ray_then * ray_now).sum(-1) / np.sqrt(squared_then * squared_now)
    change = viewpoint_change(cos, squared_then / squared_now)
    too_different = change > config.max_viewpoint_change
    order = np.lexsort((change, ~preferred[considered] | too_different, at))
    first = np.searchsorted(at[order], at[order])
    rank = np.arange(len(order)) - first
    near = change[order] <= config.max_refinement_ratio * change[order][first]
    count = np.where(near, config.refinement_observations, 0)
    used = (rank < np.maximum(config.observations, count)) & ~too_different[order]
    return considered[order[used]], rank[used]


def viewpoint_change(
    cosines: NDArray[np.float64], squared_ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how differently a point appears from two places: the angle between the rays to it
    (rad) plus the logarithm of the change of scale.

    cosines: of the angles. squared_ratios: of the rays' lengths, squared.
    """
    return np.asarray(np.arccos(np.clip(cosines, -1, 1)) + np.abs(np.log(squared_ratios)) / 2)


def _further(
    tiles: dict[int, Tile],
    observed: _Observations,
    which: NDArray[np.intp],
    of: NDArray[np.intp],
    device: str,
) -> FurtherObservations | None:
    """Which observations (M,) are further ones, of points in rows (M,) of the view."""
    if not len(which):
        return None
    finest = len(next(iter(tiles.values())).features) - 1
    (features,), (confidences,) = _gather(tiles, observed, which, [finest])
    rows = torch.from_numpy(of).to(device)
    return FurtherObservations(rows, features.to(device), confidences.to(device))


def _gather(
    tiles: dict[int, Tile],
    observed: _Observations,
    which: NDArray[np.intp],
    levels: Sequence[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """Features (N, C) and confidences (N,) per level, float32, of observations (N,).

    They are where the tiles' rows are.
    """
    tile_of_row, row = observed.tile[which], observed.row[which]
    order = np.argsort(tile_of_row, kind="stable")  # tile by tile; `back` undoes it
    place = next(iter(tiles.values())).confidences[0].device
    back = torch.from_numpy(np.argsort(order)).to(place, non_blocking=True)
    picked = [
        (tile, torch.from_numpy(row[tile_of_row == index]).to(place, non_blocking=True))
        for index, tile in sorted(tiles.items())
    ]
    features, confidences = [], []
    for level in levels:
        rows = torch.cat([tile.features[level][index] for tile, index in picked])
        features.append(unit_rows(rows[back]))
        weights = torch.cat([tile.confidences[level][index] for tile, index in picked])
        confidences.append(weights[back].float())
    return features, confidences
