"""What maps keep of the drives that they were updated with, brought into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.held_queries import (
    FILE_NAME,
    HeldComparison,
    HeldQuery,
    Judge,
    arrays_of,
    queries_of,
    read_session_arrays,
)
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge.joined_points import MergedPoints, first_ids
from pixloc_ros.maps.merge.placed_map import PlacedMap
from pixloc_ros.maps.schema import SessionEntry
from pixloc_ros.maps.update.keyframes import thinned
from pixloc_ros.maps.update.point_history import PointHistory
from pixloc_ros.maps.update.updater import MAX_HELD

MAX_COMPARED = 40  # held queries of each map, on the old and on the new one


def merged_history(maps: Sequence[PlacedMap]) -> tuple[SessionEntry, ...]:
    """The sessions of all maps by their dates; one that several have, as parts of one map, once."""
    entries = dict.fromkeys(entry for m in maps for entry in m.map.metadata.history)
    return tuple(sorted(entries, key=lambda entry: entry.date))


def merged_conditions(maps: Sequence[PlacedMap]) -> NDArray[np.int32] | None:
    """Of all keyframes: what two maps have learned apart from each other are two conditions."""
    if all(m.map.keyframe_condition is None for m in maps):
        return None
    parts, end = [], 0
    for map_ in maps:
        condition = map_.map.keyframe_condition
        if condition is None:
            condition = np.zeros(len(map_.T_new_cam), np.int32)
        own = map_.map.metadata.history != maps[0].map.metadata.history
        parts.append(np.where(condition > 0, condition + own * end, 0).astype(np.int32))
        end = max(end, int(parts[-1].max(initial=0)))
    return np.concatenate(parts)


def merged_session_files(maps: Sequence[PlacedMap], new: MergedPoints) -> dict[str, Arrays]:
    """The file of held queries and of points that drives looked through; none without sessions.

    A joined point begins anew: it is in several maps, which tells that it was there.
    Raises MapError where the file of a map is damaged.
    """
    held: list[HeldQuery] = []
    histories = []
    for map_, first_id in zip(maps, first_ids(maps)[:-1].tolist(), strict=True):
        arrays = read_session_arrays(map_.map)
        held += _placed(queries_of(arrays), map_)
        history = PointHistory.of(arrays)
        ids = history.point_id + first_id
        left = ~new.joined[ids]
        histories.append((ids[left], history.sessions[left], history.frames[left]))
    if all(FILE_NAME not in m.map.metadata.files for m in maps):
        return {}
    columns = (np.concatenate(column).astype(np.int32) for column in zip(*histories, strict=True))
    return {FILE_NAME: {**PointHistory(*columns).arrays(), **arrays_of(thinned(held, MAX_HELD))}}


def compare_held(
    maps: Sequence[PlacedMap], merged: Map, judge: Judge
) -> tuple[tuple[str, HeldComparison], ...]:
    """Localize the queries that each map holds on it and on the merged one, by name of the map."""
    found = []
    for map_ in maps:
        held = thinned(queries_of(read_session_arrays(map_.map)), MAX_COMPARED)
        if held:
            scores = judge(map_.map, held), judge(merged, _placed(held, map_))
            found.append((map_.name, HeldComparison(len(held), *scores)))
    return tuple(found)


def _placed(queries: Sequence[HeldQuery], map_: PlacedMap) -> list[HeldQuery]:
    """Held queries where the keyframes nearest to them have gone."""
    placed = []
    for query in queries:
        keyframe = int(map_.map.nearest_keyframes(query.T_map_base[:3, 3], 1)[0])
        T_new_map = map_.T_new_cam[keyframe] @ se3.inverse(map_.map.keyframe_T_map_cam[keyframe])
        placed.append(replace(query, T_map_base=T_new_map @ query.T_map_base))
    return placed
