"""New maps from parts of old ones. Features are kept as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_array

from pixloc_ros.errors import MapError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.feature_store import Arrays, covisibility_arrays
from pixloc_ros.maps.map import OPTIONAL_ARRAYS, Map, pack_names
from pixloc_ros.maps.schema import RowType
from pixloc_ros.maps.tiles import Tile, join

COUNTED = {
    "schema_version", "keyframes", "keyframes_file", "observations", "points", "point_id_end",
    "tiles", "files",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredMap:
    """How a new map is stored; None: as the first of the old ones."""

    tile_m: float | None = None
    row_type: RowType | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Of the metadata, those to be changed."""
        return {name: value for name, value in asdict(self).items() if value is not None}


AS_BEFORE = StoredMap()


@dataclass(frozen=True, slots=True)
class MapPart:
    """Keyframes of a map that go into the new one."""

    map: Map
    keyframes: NDArray[np.intp]  # ascending
    names: tuple[str, ...]
    camera: NDArray[np.int32]  # (K,) index into the cameras of the new map
    T_new_map: Matrix  # (4, 4)

    def tile(self, keyframes: NDArray[np.intp], first: int, first_id: int) -> list[Tile]:
        """What these keyframes, indices into `keyframes`, see: by tile of the old map.

        first, first_id: the indices of the first keyframe and of the first point in the new map.
        Raises MapError for a tile that is refused.
        """
        old = self.keyframes[keyframes]
        parts = []
        for index in np.unique(self.map.keyframe_tile[old]).tolist():
            here = self.map.keyframe_tile[old] == index
            part = self.map.tiles.tile(index).part(old[here]).moved(self.T_new_map)
            new = (keyframes[here] + first).astype(np.int32)
            parts.append(replace(part, keyframes=new, point_id=part.point_id + first_id))
        return parts


def crop(
    map_: Map,
    low: Sequence[float],
    high: Sequence[float],
    output: str | Path,
    overwrite: bool,
    stored: StoredMap = AS_BEFORE,
) -> Map:
    """The keyframes between two corners (x, y) in metres, and what they see, as a map of its own.

    Raises MapError where no keyframe lies between, for an output that cannot be written, and where
    a tile that is needed is refused.
    """
    places = map_.keyframe_T_map_cam[:, :2, 3]
    kept = np.flatnonzero(((places >= low) & (places <= high)).all(-1))
    if not len(kept):
        least, most = places.min(0), places.max(0)
        raise MapError(
            f"no keyframe from x,y {_pair(low)} to {_pair(high)}; the map's are from "
            f"{_pair(least)} to {_pair(most)}"
        )
    names = tuple(map_.keyframe_names[k] for k in kept)
    part = MapPart(map_, kept, names, map_.keyframe_camera[kept], np.eye(4))
    return save([part], dict(map_.metadata) | stored.fields, output, overwrite)


def _pair(numbers: Sequence[float] | Matrix) -> str:
    return ",".join(f"{number:.1f}" for number in numbers)


def save(
    sources: Sequence[MapPart],
    metadata: Mapping[str, Any],
    output: str | Path,
    overwrite: bool,
    changed: Callable[[Tile], Tile] = lambda part: part,
    keyframe_arrays: Mapping[str, NDArray] | None = None,
    other_files: Mapping[str, Arrays] | None = None,
) -> Map:
    """Write parts of maps as one map, tile by tile.

    metadata: fields of the new map; those in COUNTED are passed over. changed: what becomes of each
    part, its points under their new ids and in the new frame. keyframe_arrays: those that are not
    as in the old maps. Raises MapError for an output that cannot be written.
    """
    kept = {name: value for name, value in metadata.items() if name not in COUNTED}
    first = np.cumsum([0, *(len(source.keyframes) for source in sources)])
    first_id = np.cumsum([0, *(source.map.point_id_end for source in sources)])
    row_type = metadata["row_type"]
    arrays = _keyframe_arrays(sources) | dict(keyframe_arrays or {})
    with writer.writing(arrays, kept, output, overwrite, other_files) as (cells, tiles):
        for cell, keyframes in cells.items():
            parts: list[Tile] = []
            for i, source in enumerate(sources):
                own = keyframes[(keyframes >= first[i]) & (keyframes < first[i + 1])] - first[i]
                parts += source.tile(own, int(first[i]), int(first_id[i]))
            parts = [changed(part).with_rows(row_type) for part in parts]
            tiles.add(cell, join(parts, metadata["storage"]))
    return Map.load(output, verify=False)


def _keyframe_arrays(sources: Sequence[MapPart]) -> Arrays:
    arrays: Arrays = {
        "keyframe_T_map_cam": np.concatenate(
            [s.T_new_map @ s.map.keyframe_T_map_cam[s.keyframes] for s in sources]
        ),
        "keyframe_names": pack_names([name for source in sources for name in source.names]),
        "keyframe_camera": np.concatenate([source.camera for source in sources]),
        **covisibility_arrays(block_diag([_shared(s.map, s.keyframes) for s in sources], "csr")),
    }
    for name in OPTIONAL_ARRAYS:
        optional = [getattr(source.map, name) for source in sources]
        if name == "keyframe_condition" and any(array is not None for array in optional):
            optional = [_conditions(source.map) for source in sources]
        if all(array is not None for array in optional):
            parts = [array[s.keyframes] for array, s in zip(optional, sources, strict=True)]
            arrays[name] = np.concatenate(parts)
    return arrays


def _conditions(map_: Map) -> NDArray[np.int32]:
    """Of its keyframes, also where it was never updated."""
    if map_.keyframe_condition is None:
        return np.zeros(len(map_.keyframe_names), np.int32)
    return map_.keyframe_condition


def _shared(map_: Map, keyframes: NDArray[np.intp]) -> csr_array:
    """Counts of points that each pair of these keyframes shares."""
    count = len(map_.keyframe_names)
    neighbours = map_.covisible_points, map_.covisible_keyframe, map_.covisible_offsets
    return csr_array(neighbours, shape=(count, count))[keyframes][:, keyframes]
