"""The part of a map that is worth aligning at a prior pose: `select_view`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.candidates import (
    Observations,
    Viewpoint,
    collect_observations,
    distinct_points,
)
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.observation_choice import choose_observations
from pixloc_ros.maps.serving_keyframes import serving_keyframes
from pixloc_ros.maps.tiles import Tile, unit_rows


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
    viewpoint = Viewpoint.of(T_map_cam_prior, camera)
    if not len(serving.index):
        return _empty(viewpoint.origin, nearest_m, missing, map_.metadata.dims, device)
    observed = collect_observations(map_, serving, viewpoint.origin)
    points = distinct_points(map_, serving, observed, viewpoint, config, point_ids)
    chosen = choose_observations(map_, observed, points, viewpoint, camera, config, condition)
    levels = range(len(map_.metadata.dims))
    features, confidences = _gather(serving.tiles, observed, chosen.best, levels)
    return MapView(
        origin=viewpoint.origin,
        points=torch.from_numpy(observed.points_local[chosen.best].astype(np.float32)).to(device),
        point_ids=observed.point_id[chosen.best],
        features=tuple(rows.to(device) for rows in features),
        confidences=tuple(weights.to(device) for weights in confidences),
        keyframes=tuple(map_.keyframe_names[i] for i in serving.index),
        nearest_m=nearest_m,
        missing=missing,
        further=_further(serving.tiles, observed, chosen.further, chosen.further_of, device),
        depth_errors=_depth_errors(map_, observed, chosen.best, viewpoint.origin, device),
    )


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


def _further(
    tiles: dict[int, Tile],
    observed: Observations,
    which: NDArray[np.intp],
    of: NDArray[np.intp],
    device: str,
) -> FurtherObservations | None:
    """The fine features of further observations (M,), of the points in rows (M,) of the view."""
    if not len(which):
        return None
    finest = len(next(iter(tiles.values())).features) - 1
    (features,), (confidences,) = _gather(tiles, observed, which, [finest])
    rows = torch.from_numpy(of).to(device)
    return FurtherObservations(rows, features.to(device), confidences.to(device))


def _gather(
    tiles: dict[int, Tile],
    observed: Observations,
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


def _depth_errors(
    map_: Map,
    observed: Observations,
    chosen: NDArray[np.intp],
    origin: NDArray[np.float64],
    device: str,
) -> Tensor | None:
    """One standard deviation (N, 3) of the chosen observations' points along their rays."""
    sigma = observed.depth_sigma[chosen, None]
    if not sigma.any():
        return None
    centres = map_.keyframe_T_map_cam[observed.keyframe[chosen], :3, 3] - origin
    errors = sigma * (observed.points_local[chosen] - centres)
    return torch.from_numpy(errors.astype(np.float32)).to(device)
