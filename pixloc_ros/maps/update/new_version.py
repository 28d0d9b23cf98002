"""The new version of a map: keyframes and their observations added, points retired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.maps import held_queries
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.build.builder import HALF_TRACK
from pixloc_ros.maps.build.edit import COUNTED
from pixloc_ros.maps.feature_store import Arrays, covisibility
from pixloc_ros.maps.map import Map, pack_names
from pixloc_ros.maps.occlusion import GRID
from pixloc_ros.maps.schema import CameraEntry, SessionEntry
from pixloc_ros.maps.tiles import POINT_ARRAYS, Tile, as_float16, join
from pixloc_ros.maps.update.keyframes import AddedKeyframe
from pixloc_ros.maps.update.new_points import NewPoints


def write_version(
    map_: Map,
    keyframes: Sequence[AddedKeyframe],
    new: NewPoints,
    retired: NDArray[np.int32],
    session: SessionEntry,
    session_arrays: Mapping[str, NDArray],
    output: Path,
) -> None:
    """Write a map with new keyframes and points to another folder.

    retired: ids of points that are left out. Needs memory for the
    whole map. Raises MapError where a tile is refused, or the output cannot be written.
    """
    stored = map_.whole()
    old = stored.observing(~np.isin(stored.point_id[stored.observation_point], retired))
    row_type = map_.metadata.row_type
    whole = old
    if keyframes:
        added = _tile_of(keyframes, old, new, len(map_.keyframe_names)).with_rows(row_type)
        whole = join([old, added], map_.metadata.storage)
    entries = [CameraEntry.of(each.frame.camera) for each in keyframes]
    cameras = tuple(dict.fromkeys([*map_.metadata.cameras, *entries]))
    kept = {name: value for name, value in dict(map_.metadata).items() if name not in COUNTED}
    metadata = {**kept, "cameras": cameras, "history": (*map_.metadata.history, session)}
    prefix = f"{session.name}.{len(map_.metadata.history) + 1}"
    arrays = _keyframe_arrays(map_, keyframes, prefix)
    added_cameras = [cameras.index(entry) for entry in entries]
    arrays["keyframe_camera"] = np.array([*map_.keyframe_camera, *added_cameras], np.int32)
    arrays |= covisibility(whole.observation_offsets, whole.observation_point)
    other = {held_queries.FILE_NAME: session_arrays}
    with writer.writing(arrays, metadata, output, other_files=other) as (cells, tiles):
        for cell, members in cells.items():
            tiles.add(cell, whole.part(members))


def check_storage(map_: Map) -> None:
    """Raise MapError for a map that observations cannot be added to."""
    if map_.metadata.storage != "observations":
        raise MapError(
            f"{map_.source.path('map.json')}: the map stores the average of each point's "
            f"observations, to which none can be added; build it with --features observations"
        )


def _tile_of(keyframes: Sequence[AddedKeyframe], old: Tile, new: NewPoints, first: int) -> Tile:
    """The observations of new keyframes, of points of the old tile and of new ones."""
    observed = np.concatenate([each.point_ids for each in keyframes])
    ids, point = np.unique(observed, return_inverse=True)
    counts = [len(each.point_ids) for each in keyframes]
    levels = range(len(old.features))
    features, confidences = (
        [
            torch.from_numpy(np.concatenate([getattr(k, name)[level] for k in keyframes]))
            for level in levels
        ]
        for name in ("features", "confidences")
    )
    return Tile(
        keyframes=np.arange(first, first + len(keyframes), dtype=np.int32),
        observation_offsets=np.cumsum([0, *counts]),
        observation_point=point.astype(np.int32),
        observation_row=np.arange(len(observed), dtype=np.int32),
        **_points_of(ids, old, new, point, np.mean(confidences, axis=0)),
        features=tuple(as_float16(feature) for feature in features),
        confidences=tuple(confidence.half() for confidence in confidences),
        origin=old.origin,
    )


def _points_of(
    ids: NDArray[np.int32],
    old: Tile,
    new: NewPoints,
    observed: NDArray[np.intp],
    confidence: NDArray[np.float32],
) -> Arrays:
    """POINT_ARRAYS of some points, ascending; those of the old tile come first.

    observed, confidence: (O,) which of these each observation is of, and how confident it is.
    """
    known = np.searchsorted(old.point_id, ids[ids < new.first_id])
    added = ids[ids >= new.first_id] - new.first_id
    counts = np.bincount(observed, minlength=len(ids))[len(known) :]
    total = np.bincount(observed, confidence, len(ids))[len(known) :]
    arrays: Arrays = {
        "point_id": ids[len(known) :],
        "points": new.points_map[added] - old.origin,
        "point_error_px": new.error_px[added],
        "point_priority": (total / (counts + HALF_TRACK)).astype(np.float32),
        "point_depth_sigma": new.depth_sigmas()[added],
    }
    return {
        name: np.concatenate([getattr(old, name)[known], arrays[name]]) for name in POINT_ARRAYS
    }


def _keyframe_arrays(
    map_: Map,
    keyframes: Sequence[AddedKeyframe],
    prefix: str,
) -> Arrays:
    count = len(keyframes)
    before = map_.keyframe_condition
    if before is None:
        before = np.zeros(len(map_.keyframe_names), np.int32)
    names = [f"{prefix}/{each.frame.name}" for each in keyframes]
    poses = np.array([each.frame.T_map_cam for each in keyframes]).reshape(-1, 4, 4)
    arrays: Arrays = {
        "keyframe_T_map_cam": np.concatenate([map_.keyframe_T_map_cam, poses]),
        "keyframe_names": pack_names([*map_.keyframe_names, *names]),
        "keyframe_condition": np.array([*before, *(k.condition for k in keyframes)], np.int32),
    }
    if map_.keyframe_descriptors is not None:
        added = [each.descriptor.astype(np.float16)[None] for each in keyframes]
        arrays["keyframe_descriptors"] = np.concatenate([map_.keyframe_descriptors, *added])
    if map_.keyframe_depth_m is not None:  # 0: nothing is known to hide anything
        unknown = np.zeros((count, *GRID), np.float16)
        arrays["keyframe_depth_m"] = np.concatenate([map_.keyframe_depth_m, unknown])
    return arrays
