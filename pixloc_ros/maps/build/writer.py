"""Writing a map folder, tile by tile: beside the output first, then moved there whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes
from torch import from_numpy

from pixloc_ros.common.atomic_write import atomic_folder, clear_remains
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.schema import ROW_TYPE, TILE_M, MapMetadata, TileEntry
from pixloc_ros.maps.tiles import INDEX_ARRAYS, Tile

KEYFRAMES_FILE = "keyframes.safetensors"
TILE_FILE = "tile_{id}.safetensors"


def check_output(output: str | Path, overwrite: bool) -> Path:
    """The output's path; raises MapError unless a map may be written there.

    Only maps are ever overwritten: an output that is another folder is always refused.
    """
    path = Path(output).expanduser().absolute()
    if not path.parent.is_dir():
        raise MapError(f"{path}: there is no folder {path.parent}; create it first")
    with _writing(path):
        clear_remains(path)
    if path.exists() and not (path / schema.FILE_NAME).is_file():
        raise MapError(f"{path} exists and is not a map; choose another output")
    if path.exists() and not overwrite:
        raise MapError(f"{path} exists; choose another output, or pass --overwrite")
    return path


def save(
    keyframe_arrays: Mapping[str, NDArray],
    point_arrays: Mapping[str, NDArray],
    metadata: Mapping[str, Any],
    output: str | Path,
    overwrite: bool = False,
) -> str:
    """Write a map that is in memory, cut into tiles; returns its SHA-256.

    metadata: the fields of MapMetadata that are not counted here. `points` are float64, in map
    coordinates.
    Raises MapError when the output exists and may not be overwritten, or cannot be written.
    """
    count = len(keyframe_arrays["keyframe_T_map_cam"])
    known = {name: array for name, array in keyframe_arrays.items() if name not in INDEX_ARRAYS}
    index = {
        **{name: array for name, array in keyframe_arrays.items() if name in INDEX_ARRAYS},
        "keyframes": np.arange(count, dtype=np.int32),
        "point_id": np.arange(len(point_arrays["points"]), dtype=np.int32),
    }
    tensors = {name: from_numpy(array) for name, array in {**point_arrays, **index}.items()}
    whole = Tile.of(tensors, len(metadata["dims"]), np.zeros(3))
    with writing(known, metadata, output, overwrite) as (cells, tiles):
        for cell, keyframes in cells.items():
            tiles.add(cell, whole.part(keyframes))
    return tiles.sha256


@contextmanager
def writing(
    keyframe_arrays: Mapping[str, NDArray],
    metadata: Mapping[str, Any],
    output: str | Path,
    overwrite: bool = False,
    other_files: Mapping[str, Mapping[str, NDArray]] | None = None,
) -> Iterator[tuple[dict[str, NDArray[np.intp]], TileWriter]]:
    """Write a map tile by tile, never with more than one in memory.

    Gives the keyframes of each tile by its id, and the writer to which all these tiles are to be
    added. Arguments and errors are those of `save`; keyframe_arrays is without observations.
    other_files: arrays by file name, what else belongs to the map.
    """
    path = check_output(output, overwrite)
    fields = {"tile_m": TILE_M, "row_type": ROW_TYPE, **metadata}
    places = keyframe_arrays["keyframe_T_map_cam"][:, :3, 3]
    with _writing(path), atomic_folder(path) as folder:
        tiles = TileWriter(folder, fields, keyframe_arrays)
        yield cells(places, fields["tile_m"]), tiles
        tiles.finish(other_files or {})


def cells(places: NDArray[np.float64], tile_m: float) -> dict[str, NDArray[np.intp]]:
    """Indices of places (M, 3) by tile: squares of the map's x and y, (0, 0) amid one of them."""
    if not tile_m:
        return {"0": np.arange(len(places))}
    grid = np.floor(places[:, :2] / tile_m + 0.5).astype(np.int64)
    corners, cell = np.unique(grid, axis=0, return_inverse=True)
    order = np.argsort(cell, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(cell.ravel()))[:-1])
    return {f"{x}_{y}": group for (x, y), group in zip(corners, groups, strict=True)}


class TileWriter:
    """Writes tiles into a folder, then the files that name them."""

    def __init__(
        self, folder: Path, metadata: Mapping[str, Any], keyframe_arrays: Mapping[str, NDArray]
    ) -> None:
        self.sha256 = ""
        self._folder = folder
        self._metadata = metadata
        self._keyframe_arrays = keyframe_arrays
        self._tile = np.full(len(keyframe_arrays["keyframe_T_map_cam"]), -1, np.int32)
        self._entries: list[TileEntry] = []
        self._files: dict[str, str] = {}
        self._point_ids: list[NDArray[np.int32]] = []
        self._observations = 0

    def add(self, id: str, tile: Tile) -> None:
        """Store a tile whose keyframes are in no other one."""
        places = self._keyframe_arrays["keyframe_T_map_cam"][tile.keyframes, :3, 3]
        tile = tile.relative_to(np.round(np.median(places, axis=0)))
        tile = tile.with_rows(self._metadata["row_type"])
        arrays = tile.arrays() | {"points": tile.points.astype(np.float32)}
        file = TILE_FILE.format(id=id)
        size = self._write(file, arrays)
        self._tile[tile.keyframes] = len(self._entries)
        self._point_ids.append(tile.point_id)
        self._observations += len(tile.observation_point)
        entry = TileEntry(
            id=id,
            file=file,
            origin=tuple(tile.origin.tolist()),
            points=len(tile.points),
            rows=len(tile.confidences[0]),
            bytes=size,
        )
        self._entries.append(entry)

    def finish(self, other_files: Mapping[str, Mapping[str, NDArray]]) -> None:
        """Store other files, keyframes and map.json; `sha256` then stands for the map."""
        for name, arrays in other_files.items():
            self._write(name, arrays)
        self._write(KEYFRAMES_FILE, {**self._keyframe_arrays, "keyframe_tile": self._tile})
        ids = np.unique(np.concatenate(self._point_ids))
        complete = MapMetadata(
            **self._metadata,
            keyframes=len(self._tile),
            keyframes_file=KEYFRAMES_FILE,
            observations=self._observations,
            points=len(ids),
            point_id_end=int(ids[-1]) + 1 if len(ids) else 0,
            tiles=tuple(self._entries),
            files=self._files,
        )
        self.sha256 = schema.write(complete, self._folder)

    def _write(self, name: str, arrays: Mapping[str, NDArray]) -> int:
        content = to_bytes({key: np.ascontiguousarray(array) for key, array in arrays.items()})
        with (self._folder / name).open("wb") as file:  # the umask decides who may read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = hashlib.sha256(content).hexdigest()
        return len(content)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turns errors of writing into one line."""
    try:
        yield
    except DataError as error:
        raise MapError(str(error)) from None
    except OSError as error:
        raise MapError(f"{output} cannot be written ({error.strerror or error})") from None
