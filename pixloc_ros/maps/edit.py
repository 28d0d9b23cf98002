"""New maps from old ones: a part of one, or several as one. Features are kept as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pymap3d
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps import writer
from pixloc_ros.maps.rows import Arrays, covisibility
from pixloc_ros.maps.schema import Datum, MapMetadata
from pixloc_ros.maps.store import Map, pack_names

Array = NDArray[np.float64]
COUNTED = {"schema_version", "keyframes", "keyframes_file", "observations", "tiles", "files"}
# What must be equal for features to be comparable.
SAME = ("weights_sha256", "max_side_px", "strides", "dims", "storage")


def crop(
    map_: Map, low: Sequence[float], high: Sequence[float], output: str | Path, overwrite: bool
) -> Map:
    """The keyframes between two corners (x, y) in metres, and what they see, as a map of its own.

    Raises MapError where no keyframe lies between, and for an output that cannot be written.
    """
    places = map_.keyframe_T_map_cam[:, :2, 3]
    kept = np.flatnonzero(((places >= low) & (places <= high)).all(-1))
    if not len(kept):
        least, most = places.min(0), places.max(0)
        raise MapError(
            f"no keyframe from x,y {_pair(low)} to {_pair(high)}; the map's are from "
            f"{_pair(least)} to {_pair(most)}"
        )
    return _save([_part(map_, kept)], dict(map_.metadata), output, overwrite)


def merge(maps: Sequence[tuple[str, Map]], output: str | Path, overwrite: bool) -> Map:
    """Several named maps as one, in the frame of the first.

    With a datum in all of them they are placed by it, without any they must share a frame.
    Keyframes whose names clash get their map's name in front. Raises MapError for maps
    of other weights or storage, and where only some have a datum.
    """
    (first_name, first), *others = maps
    for name, map_ in others:
        _check_alike(first_name, first.metadata, name, map_.metadata)
    names = [keyframe for _, map_ in maps for keyframe in map_.keyframe_names]
    clash = len(set(names)) < len(names)
    cameras = list(dict.fromkeys(entry for _, map_ in maps for entry in map_.metadata.cameras))
    parts = []
    for name, map_ in maps:
        T_first_map = _between(first.datum, map_.datum)
        whole = _part(map_, np.arange(len(map_.keyframe_names)), T_first_map)
        if clash:
            whole["names"] = [f"{name}/{keyframe}" for keyframe in whole["names"]]
        index = np.array([cameras.index(entry) for entry in map_.metadata.cameras], np.int32)
        whole["keyframe_camera"] = index[whole["keyframe_camera"]]
        parts.append(whole)
    metadata = dict(first.metadata)
    for field in ("T_base_cam", "T_map_world"):
        if any(getattr(m.metadata, field) != getattr(first.metadata, field) for _, m in others):
            metadata |= _FORGOTTEN[field]
    metadata["cameras"] = tuple(cameras)
    return _save(parts, metadata, output, overwrite)


_FORGOTTEN: dict[str, dict[str, Any]] = {
    "T_base_cam": {"T_base_cam": None},
    "T_map_world": {"T_map_world": tuple(np.eye(4).ravel().tolist()), "axes": "keep"},
}


def _pair(numbers: Sequence[float] | Array) -> str:
    return ",".join(f"{number:.1f}" for number in numbers)


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


def _between(first: Datum | None, second: Datum | None) -> Array:
    """T_first_second (4, 4) of two maps' frames on Earth."""
    if first is None or second is None or first == second:
        return np.eye(4)
    return se3.inverse(_ecef_from_map(first)) @ _ecef_from_map(second)


def _ecef_from_map(datum: Datum) -> Array:
    """T_ecef_map (4, 4) of a map's frame."""
    zero = (datum.latitude_deg, datum.longitude_deg, datum.altitude_m)
    latitude, longitude = np.deg2rad(zero[:2])
    # Columns: east, north, up.
    R_ecef_enu = Rotation.from_euler("ZX", [np.pi / 2 + longitude, np.pi / 2 - latitude])
    R_enu_map = Rotation.from_euler("z", datum.yaw_deg, degrees=True)
    return se3.make((R_ecef_enu * R_enu_map).as_matrix(), pymap3d.geodetic2ecef(*zero))


def _part(map_: Map, keyframes: NDArray[np.intp], T_new_map: Array | None = None) -> dict[str, Any]:
    """What these keyframes see, with indices of its own."""
    T_new_map = np.eye(4) if T_new_map is None else T_new_map
    offsets = map_.observation_offsets
    observations = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in keyframes])
    points, point = np.unique(map_.observation_point[observations], return_inverse=True)
    rows, row = np.unique(map_.observation_row[observations], return_inverse=True)
    new_keyframe = np.full(len(map_.keyframe_names) + 1, -1, np.int32)  # the last one is for -1
    new_keyframe[keyframes] = np.arange(len(keyframes))
    return {
        "names": [map_.keyframe_names[k] for k in keyframes],
        "keyframe_T_map_cam": T_new_map @ map_.keyframe_T_map_cam[keyframes],
        "keyframe_camera": map_.keyframe_camera[keyframes],
        "keyframe_descriptors": _rows_of(map_.keyframe_descriptors, keyframes),
        "lengths": np.diff(offsets)[keyframes],
        "observation_point": point.astype(np.int32),
        "observation_row": row.astype(np.int32),
        "points_map": se3.transform(T_new_map, map_.points[points] + map_.origin),
        "point_error_px": map_.point_error_px[points],
        "point_priority": map_.point_priority[points],
        "row_point": np.searchsorted(points, map_.row_point[rows]).astype(np.int32),
        "row_keyframe": new_keyframe[map_.row_keyframe[rows]],
        "features": [feature[rows].numpy() for feature in map_.features],
        "confidences": [confidence[rows].numpy() for confidence in map_.confidences],
    }


def _rows_of(array: NDArray | None, index: NDArray[np.intp]) -> NDArray | None:
    return None if array is None else array[index]


def _save(
    parts: Sequence[dict[str, Any]], metadata: dict[str, Any], output: str | Path, overwrite: bool
) -> Map:
    def joined(name: str) -> NDArray:
        return np.concatenate([part[name] for part in parts])

    def shifted(name: str, counts: Sequence[int]) -> NDArray[np.int32]:
        """Indices into what precedes in other parts too; -1 stays."""
        starts = np.cumsum([0, *counts[:-1]])
        moved = (
            np.where(part[name] < 0, -1, part[name] + start)
            for part, start in zip(parts, starts, strict=True)
        )
        return np.concatenate(list(moved)).astype(np.int32)

    n_points = [len(part["points_map"]) for part in parts]
    T_map_cam = joined("keyframe_T_map_cam")
    origin = np.round(np.median(T_map_cam[:, :3, 3], axis=0))
    offsets = np.concatenate([[0], np.cumsum(joined("lengths"))])
    observation_point = shifted("observation_point", n_points)
    keyframe_arrays: Arrays = {
        "keyframe_T_map_cam": T_map_cam,
        "keyframe_names": pack_names([name for part in parts for name in part["names"]]),
        "keyframe_camera": joined("keyframe_camera"),
        "observation_offsets": offsets,
        "observation_point": observation_point,
        "observation_row": shifted("observation_row", [len(p["row_point"]) for p in parts]),
        **covisibility(offsets, observation_point),
    }
    if all(part["keyframe_descriptors"] is not None for part in parts):
        keyframe_arrays["keyframe_descriptors"] = joined("keyframe_descriptors")
    point_arrays: Arrays = {
        "points": (joined("points_map") - origin).astype(np.float32),
        "point_error_px": joined("point_error_px"),
        "point_priority": joined("point_priority"),
        "row_point": shifted("row_point", n_points),
        "row_keyframe": shifted("row_keyframe", [len(part["names"]) for part in parts]),
    }
    for kind in ("features", "confidences"):
        for level in range(len(metadata["dims"])):
            point_arrays[f"{kind}_{level}"] = np.concatenate([p[kind][level] for p in parts])
    kept = {name: value for name, value in metadata.items() if name not in COUNTED}
    writer.save(keyframe_arrays, point_arrays, kept, origin, output, overwrite)
    return Map.load(output, verify=False)
