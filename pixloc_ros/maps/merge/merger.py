"""Several maps as one: the whole story, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import temporary_folder
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build import edit, writer
from pixloc_ros.maps.build.edit import AS_BEFORE, MapPart, StoredMap
from pixloc_ros.maps.datum import T_first_second
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.held_queries import HeldComparison, Judge
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge import matching, sessions
from pixloc_ros.maps.merge.joined_points import (
    MergedPoints,
    edges_of,
    first_ids,
    join_points,
)
from pixloc_ros.maps.merge.offset import Offsets, aligned, find_offsets
from pixloc_ros.maps.merge.placed_map import PlacedMap
from pixloc_ros.maps.schema import MapMetadata
from pixloc_ros.maps.update import versions

# What must be equal for features to be comparable.
SAME = ("weights_sha256", "max_side_px", "strides", "dims", "storage")


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """What becomes of points that maps have in common."""

    join: bool = True  # make one of the points that are one; otherwise maps lie side by side
    align: bool = False  # bring each map onto those before it where they overlap
    max_offset_m: float = 0.1  # by which maps that are not aligned may differ, median
    force: bool = False  # write a map that localizes held queries worse


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two maps agree where they overlap."""

    first: str
    second: str
    keyframes: int  # of the second map, that are near the first
    offsets: Offsets  # before it was aligned, if it was
    matched: int  # pairs of points


@dataclass(frozen=True, slots=True)
class Merged:
    """The new map, and how the old ones went together."""

    map: Map
    overlaps: tuple[Overlap, ...]
    joined: int  # points of the new map that several maps had
    dropped: int  # observations of these that were too many
    held: tuple[tuple[str, HeldComparison], ...]  # queries that maps hold, by name of the map


def merge(
    maps: Sequence[tuple[str, Map]],
    output: str | Path,
    overwrite: bool = False,
    stored: StoredMap = AS_BEFORE,
    options: MergeOptions | None = None,
    progress: Progress = silent,
    judge: Judge | None = None,
) -> Merged:
    """Write several named maps as one, in the frame of the first.

    With a datum in all of them they are placed by it, without any they must share a frame.
    Keyframes whose names clash get their map's name in front. The old maps stay as they are.
    Raises MapError for maps of the same name, of other weights or storage, where only some have a
    datum, where maps differ too much, and for an output that cannot be written.
    """
    options = options or MergeOptions()
    output = writer.check_output(output, overwrite)
    (first_name, first), *others = maps
    if len({name for name, _ in maps}) < len(maps):
        raise MapError(f"maps need different names: {', '.join(name for name, _ in maps)}")
    for name, map_ in others:
        _check_alike(first_name, first.metadata, name, map_.metadata)
    transforms = [_placed(first_name, first, name, map_) for name, map_ in maps]
    parts, cameras = _parts(maps, transforms)
    metadata = {**_common_metadata([map_.metadata for _, map_ in maps]), **stored.fields}
    metadata["cameras"] = cameras
    placed = [PlacedMap.of(name, map_, T) for (name, map_), T in zip(maps, transforms, strict=True)]
    overlaps: tuple[Overlap, ...] = ()
    edges = np.zeros((0, 2), np.int64)
    if options.join and first.metadata.storage == "observations":
        placed, overlaps, edges = _compared(placed, options, progress)
    new = join_points(placed, edges)
    metadata["history"] = sessions.merged_history(placed)
    files = sessions.merged_session_files(placed, new)
    arrays = _keyframe_arrays(placed, new)
    try:
        with temporary_folder(output.with_name(f"{output.name}.merge")) as work:
            map_ = edit.save(
                parts,
                metadata,
                work / "map",
                overwrite=False,
                changed=new.applied,
                keyframe_arrays=arrays,
                other_files=files,
            )
            held = sessions.compare_held(placed, map_, judge) if judge else ()
            if not options.force:
                for name, compared in held:
                    compared.refuse_worse(
                        f"{name} would be worse in the new map",
                        "none is written (--force writes it all the same)",
                    )
            versions.put(work / "map", output)
    except DataError as error:
        raise MapError(str(error)) from None
    return Merged(Map.load(output, verify=False), overlaps, new.count, len(new.dropped), held)


def _keyframe_arrays(maps: Sequence[PlacedMap], new: MergedPoints) -> Arrays:
    """Those that are not as in the old maps."""
    arrays: Arrays = {"keyframe_T_map_cam": np.concatenate([m.T_new_cam for m in maps])}
    conditions = sessions.merged_conditions(maps)
    if conditions is not None:
        arrays["keyframe_condition"] = conditions
    return arrays | (new.covisibility(maps) if new.count else {})


def _compared(
    maps: Sequence[PlacedMap], options: MergeOptions, progress: Progress
) -> tuple[list[PlacedMap], tuple[Overlap, ...], NDArray[np.int64]]:
    """The maps, aligned if they are to be, how they agree, and edges between matched points."""
    done: list[PlacedMap] = []
    overlaps: list[Overlap] = []
    matched = []
    first_id = first_ids(maps).tolist()
    for index, second in enumerate(maps):
        near = [matching.keyframe_pairs(first, second) for first in done]
        offsets = [
            find_offsets(first, second, matching.match_by_features(first, second, pairs, progress))
            for first, pairs in zip(done, near, strict=True)
        ]
        if not options.align:
            for first, found in zip(done, offsets, strict=True):
                _check_offset(first, second, found, options.max_offset_m)
        elif any(map(len, offsets)):
            best = max(range(len(done)), key=lambda i: len(offsets[i]))
            second = _aligned(done[best], second, offsets[best], progress)
            near = [matching.keyframe_pairs(first, second) for first in done]
        for before, (first, pairs, found) in enumerate(zip(done, near, offsets, strict=True)):
            points = matching.match_by_place(first, second, pairs, progress)
            matched.append(
                (first_id[before], first_id[index], points.first, points.second, points.votes)
            )
            keyframes = len({pair.second for pair in pairs})
            if keyframes:
                overlaps.append(Overlap(first.name, second.name, keyframes, found, len(points)))
        done.append(second)
    return done, tuple(overlaps), edges_of(matched)


def _aligned(
    first: PlacedMap, second: PlacedMap, offsets: Offsets, progress: Progress
) -> PlacedMap:
    """The second map brought onto the first; once that is done, more points are in one place."""
    rough = aligned(second, offsets)
    pairs = matching.keyframe_pairs(first, rough)
    points = matching.match_by_place(first, rough, pairs, progress)
    again = find_offsets(first, second, points)
    return aligned(second, again) if len(again) else rough


def _check_offset(first: PlacedMap, second: PlacedMap, found: Offsets, limit_m: float) -> None:
    if found.median_m > limit_m:
        raise MapError(
            f"{first.name} and {second.name} differ by {found.median_m:.2f} m where they overlap "
            f"(median of {len(found)} keyframes, largest {found.largest_m:.2f} m): pass --align to "
            f"bring {second.name} onto {first.name}, or --no-join to leave them side by side"
        )


def _parts(
    maps: Sequence[tuple[str, Map]], transforms: Sequence[Matrix]
) -> tuple[list[MapPart], tuple[Any, ...]]:
    """What goes into the new map, and its cameras."""
    all_names = [keyframe for _, map_ in maps for keyframe in map_.keyframe_names]
    clash = len(set(all_names)) < len(all_names)
    cameras = tuple(dict.fromkeys(entry for _, map_ in maps for entry in map_.metadata.cameras))
    parts = []
    for (name, map_), T_new_map in zip(maps, transforms, strict=True):
        names = map_.keyframe_names
        if clash:
            names = tuple(f"{name}/{keyframe}" for keyframe in names)
        index = np.array([cameras.index(entry) for entry in map_.metadata.cameras], np.int32)
        camera = index[map_.keyframe_camera]
        parts.append(MapPart(map_, np.arange(len(names)), names, camera, T_new_map))
    return parts, cameras


_RESET_WHERE_DIFFERENT: dict[str, dict[str, Any]] = {
    "T_base_cam": {"T_base_cam": None},
    "calibration": {"calibration": None},
    "T_map_world": {"T_map_world": tuple(np.eye(4).ravel().tolist()), "axes": "keep"},
}


def _common_metadata(all_: Sequence[MapMetadata]) -> dict[str, Any]:
    """That of the first map, without what others contradict."""
    metadata = dict(all_[0])
    for field, reset in _RESET_WHERE_DIFFERENT.items():
        if any(getattr(other, field) != getattr(all_[0], field) for other in all_[1:]):
            metadata |= reset
    return metadata


def _check_alike(first: str, a: MapMetadata, second: str, b: MapMetadata) -> None:
    for field in SAME:
        if getattr(a, field) != getattr(b, field):
            raise MapError(
                f"{first} and {second} differ in {field} ({getattr(a, field)}, "
                f"{getattr(b, field)}); build them alike"
            )
    if (a.datum is None) != (b.datum is None):
        lacking = first if a.datum is None else second
        raise MapError(f"{lacking} has no datum, the other has; build it with --datum, or both not")


def _placed(first_name: str, first: Map, second_name: str, second: Map) -> Matrix:
    """T_first_second (4, 4) of two maps' frames."""
    if first.datum is None or second.datum is None:
        return np.eye(4)  # `_check_alike` saw to it that both lack one
    try:
        return T_first_second(first.datum, second.datum)
    except MapError as error:
        raise MapError(f"{first_name} and {second_name}: {error}") from None
