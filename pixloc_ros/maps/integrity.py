"""Whether a map that opens is also sound: finite, consistent, every keyframe of use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.errors import PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import Tile, unit_rows
from pixloc_ros.maps.view import select_view

UNIT_TOLERANCE = 1e-2  # of the norm of a feature in half precision
SHOWN = 3  # names listed per problem
TRIED_VIEWS = 5  # at keyframes, as a localizer would take them


def find_problems(folder: str | Path) -> list[str]:
    """One line per problem; an empty list for a sound map. Needs memory for one tile.

    Raises MapError when the map cannot be opened or no tile is as it was built.
    """
    map_ = Map.load(folder, verify=True)
    problems = [*_of_descriptors(map_)]
    seen = np.zeros(len(map_.keyframe_names), np.int64)  # points by keyframe
    for index, tile in map_.tiles.sound():
        entry = map_.metadata.tiles[index]
        where = f"tile {entry.id}: " if len(map_.tiles) > 1 else ""
        problems += [where + problem for problem in _of_values(tile)]
        if not np.array_equal(tile.keyframes, np.flatnonzero(map_.keyframe_tile == index)):
            problems.append(f"{where}its keyframes are others than keyframe_tile says")
        seen[tile.keyframes] = np.diff(tile.observation_offsets)
    refused = map_.tiles.refused
    lost = [index for index, entry in enumerate(map_.metadata.tiles) if entry.id in refused]
    problems += refused.values()
    if problems:
        return problems
    return [*_of_keyframes(map_, seen, np.isin(map_.keyframe_tile, lost)), *_of_views(map_)]


def _of_values(tile: Tile) -> Iterator[str]:
    if not np.isfinite(tile.point_priority).all():
        yield "point_priority has values that are not finite"
    if not np.isfinite(tile.points).all():
        yield f"{(~np.isfinite(tile.points)).any(-1).sum()} points are not finite"
    for level, (features, confidences) in enumerate(
        zip(tile.features, tile.confidences, strict=True)
    ):
        bad = _count_bad(features, confidences)
        if bad:
            yield f"level {level}: {bad} rows are not unit features with a confidence in 0..1"


def _count_bad(features: Tensor, confidences: Tensor) -> int:
    norms = unit_rows(features).norm(dim=-1)
    unit = (norms - 1).abs() < UNIT_TOLERANCE
    good = (unit | (confidences == 0)) & (confidences >= 0) & (confidences <= 1)
    return int((~good).sum())


def _of_descriptors(map_: Map) -> Iterator[str]:
    descriptors = map_.keyframe_descriptors
    if descriptors is None:
        return
    if len(descriptors) != len(map_.keyframe_names):
        yield f"{len(descriptors)} descriptors of {len(map_.keyframe_names)} keyframes"
    norms = np.linalg.norm(descriptors.astype(np.float32), axis=-1)
    if bad := int((~(np.abs(norms - 1) < UNIT_TOLERANCE)).sum()):
        yield f"{bad} descriptors of keyframes are not of unit norm"


def _of_keyframes(map_: Map, seen: NDArray[np.int64], lost: NDArray[np.bool_]) -> Iterator[str]:
    """lost: (M,) keyframes of tiles that are refused, of which nothing is known."""
    names = np.array(map_.keyframe_names)
    skewed = np.array([not se3.is_rigid(T) for T in map_.keyframe_T_map_cam])
    blind = (seen == 0) & ~lost
    alone = np.diff(map_.covisible_offsets) == 0
    for mask, what in (
        (skewed, "have a pose that is not rigid"),
        (blind, "see no point"),
        (alone & ~blind, "share no point with another keyframe"),
    ):
        if mask.any():
            listed = ", ".join(names[mask][:SHOWN]) + (", ..." if mask.sum() > SHOWN else "")
            yield f"{mask.sum()} of {len(names)} keyframes {what}: {listed}"


def _of_views(map_: Map) -> Iterator[str]:
    """What a localizer would meet at some of the keyframes."""
    count = len(map_.keyframe_names)
    for keyframe in np.unique(np.linspace(0, count - 1, TRIED_VIEWS).astype(int)).tolist():
        T_map_cam = map_.keyframe_T_map_cam[keyframe]
        try:
            camera = map_.metadata.cameras[map_.keyframe_camera[keyframe]].camera()
            select_view(map_, T_map_cam, camera, ViewConfig())
        except (PixlocError, ValueError, IndexError, TypeError, RuntimeError) as error:
            yield f"no view from keyframe {map_.keyframe_names[keyframe]}: {error}"
