"""Which points serve an alignment, and which keyframes' observations of each.

The prior tells which of the observed points may be in the image, and which keyframes saw a point
most as the prior does; a grid over the image spreads the choice. All of it is deterministic,
and small changes of the prior change little of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.candidates import MARGIN_SHARE, Observations, ObservedPoints, Viewpoint
from pixloc_ros.maps.map import Map

POINTS_PER_CELL = 4  # of the grid that spreads points over the image


@dataclass(frozen=True, slots=True)
class ChosenObservations:
    """Indices of observations: the best of each point of a view, and further ones."""

    best: NDArray[np.intp]  # (N,)
    further: NDArray[np.intp]  # (M,)
    further_of: NDArray[np.intp]  # (M,) rows of the best ones, of the same points


def choose_observations(
    map_: Map,
    observed: Observations,
    points: ObservedPoints,
    viewpoint: Viewpoint,
    camera: Camera,
    config: ViewConfig,
    condition: int,
) -> ChosenObservations:
    """Choose points spread over the image, and the observations most like what it shows.

    condition: whose observations of a point are preferred.
    """
    point = points.of_observation
    usable, rank = _rank_by_viewpoint(map_, observed, points, viewpoint, config, condition)
    candidates, number = np.unique(point[usable], return_inverse=True)
    priority = observed.priority[points.first[candidates]]
    spread = _spread(points.pixels[candidates], priority, camera, config)
    chosen, is_further = np.isin(number, spread), rank >= config.observations
    best, further = usable[chosen & ~is_further], usable[chosen & is_further]
    return ChosenObservations(best, further, np.searchsorted(point[best], point[further]))


def _rank_by_viewpoint(
    map_: Map,
    observed: Observations,
    points: ObservedPoints,
    viewpoint: Viewpoint,
    config: ViewConfig,
    condition: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the observations (R,) of visible points with the smallest `viewpoint_change`.

    They are in the order of the points, of each as many as are ever used, those of the condition
    first, and none beyond `max_viewpoint_change`; those for the refinement only are within
    `max_refinement_ratio` of the first one. Also returns the rank (R,) of each among those of its
    point, from 0.
    """
    considered = np.flatnonzero(points.visible[points.of_observation])
    point, keyframe = points.of_observation[considered], observed.keyframe[considered]
    change = _changes_of_viewpoint(map_, keyframe, observed.points_local[considered], viewpoint)
    too_different = change > config.max_viewpoint_change
    preferred = _of_condition(map_, keyframe, condition)
    order = np.lexsort((change, ~preferred | too_different, point))
    point, change, too_different = point[order], change[order], too_different[order]
    first = np.searchsorted(point, point)
    rank = np.arange(len(order)) - first
    near = change <= config.max_refinement_ratio * change[first]
    count = np.where(near, config.refinement_observations, 0)
    used = (rank < np.maximum(config.observations, count)) & ~too_different
    return considered[order[used]], rank[used]


def _of_condition(map_: Map, keyframes: NDArray[np.intp], condition: int) -> NDArray[np.bool_]:
    """Which keyframes (N,) are of a condition; all of them where the map knows of none."""
    if map_.keyframe_condition is None:
        return np.ones(len(keyframes), bool)
    return map_.keyframe_condition[keyframes] == condition


def _changes_of_viewpoint(
    map_: Map,
    keyframes: NDArray[np.intp],
    points_local: NDArray[np.float64],
    viewpoint: Viewpoint,
) -> NDArray[np.float64]:
    """`viewpoint_change` (N,) from the keyframes (N,) that observed points (N, 3) to the prior."""
    centres_local = map_.keyframe_T_map_cam[keyframes, :3, 3] - viewpoint.origin
    ray_then = points_local - centres_local
    ray_now = points_local - viewpoint.T_local_cam[:3, 3]
    squared_then, squared_now = (ray_then**2).sum(-1), (ray_now**2).sum(-1)
    cos = (ray_then * ray_now).sum(-1) / np.sqrt(squared_then * squared_now)
    return viewpoint_change(cos, squared_then / squared_now)


def viewpoint_change(
    cosines: NDArray[np.float64], squared_ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how differently a point appears from two places: the angle between the rays to it
    (rad) plus the logarithm of the change of scale.

    cosines: of the angles. squared_ratios: of the rays' lengths, squared.
    """
    return np.asarray(np.arccos(np.clip(cosines, -1, 1)) + np.abs(np.log(squared_ratios)) / 2)


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
