"""Whether a map that opens is also sound: finite, consistent, every keyframe of use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from pixloc_ros.geometry import se3
from pixloc_ros.maps import schema
from pixloc_ros.maps.store import Map

UNIT_TOLERANCE = 1e-2  # of the norm of a feature in half precision
SHOWN = 3  # names listed per problem


def find_problems(folder: str | Path) -> list[str]:
    """One line per problem; an empty list for a sound map.

    Raises MapError when the map cannot be opened or a file was altered.
    """
    map_ = Map.load(folder, verify=True)
    checks = (_of_counts, _of_indices, _of_values, _of_descriptors, _of_keyframes)
    return [problem for check in checks for problem in check(map_)]


def _of_counts(map_: Map) -> Iterator[str]:
    metadata, (tile,) = map_.metadata, map_.metadata.tiles
    lengths = {
        "keyframes": (len(map_.keyframe_T_map_cam), metadata.keyframes),
        "keyframe names": (len(map_.keyframe_names), metadata.keyframes),
        "observations": (len(map_.observation_point), metadata.observations),
        "points": (len(map_.points), tile.points),
    }
    for level, features in enumerate(map_.features):
        lengths[f"feature rows of level {level}"] = (len(features), tile.rows)
    for what, (found, expected) in lengths.items():
        if found != expected:
            yield f"{found} {what} where {schema.FILE_NAME} says {expected}"


def _of_indices(map_: Map) -> Iterator[str]:
    ranges = {
        "observation_point": (map_.observation_point, len(map_.points)),
        "observation_row": (map_.observation_row, len(map_.row_point)),
        "row_point": (map_.row_point, len(map_.points)),
        "keyframe_camera": (map_.keyframe_camera, len(map_.metadata.cameras)),
        "covisible_keyframe": (map_.covisible_keyframe, len(map_.keyframe_names)),
    }
    for name, (indices, count) in ranges.items():
        if len(indices) and (indices.min() < 0 or indices.max() >= count):
            yield f"{name} has an index outside 0..{count - 1}"


def _of_values(map_: Map) -> Iterator[str]:
    if not np.isfinite(map_.points).all():
        yield f"{(~np.isfinite(map_.points)).any(-1).sum()} points are not finite"
    for level, (features, confidences) in enumerate(
        zip(map_.features, map_.confidences, strict=True)
    ):
        bad = _count_bad(features, confidences)
        if bad:
            yield f"level {level}: {bad} rows are not unit features with a confidence in 0..1"


def _count_bad(features: Tensor, confidences: Tensor) -> int:
    norms = features.float().norm(dim=-1)
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


def _of_keyframes(map_: Map) -> Iterator[str]:
    names = np.array(map_.keyframe_names)
    skewed = np.array([not se3.is_rigid(T) for T in map_.keyframe_T_map_cam])
    blind = np.diff(map_.observation_offsets) == 0
    alone = np.diff(map_.covisible_offsets) == 0
    for mask, what in (
        (skewed, "have a pose that is not rigid"),
        (blind, "see no point"),
        (alone & ~blind, "share no point with another keyframe"),
    ):
        if mask.any():
            listed = ", ".join(names[mask][:SHOWN]) + (", ..." if mask.sum() > SHOWN else "")
            yield f"{mask.sum()} of {len(names)} keyframes {what}: {listed}"
