"""A tile: some keyframes of a map, the points they see and the feature rows of these.

A tile needs no other tile: points that keyframes of several tiles see are stored in each of them,
under the same id. A point costs 24 bytes, its rows ten to a hundred times that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.schema import MapMetadata, RowType, Storage, TileEntry
from pixloc_ros.maps.source import TileSource

INDEX_ARRAYS = ("keyframes", "observation_offsets", "observation_point", "observation_row")
POINT_ARRAYS = ("point_id", "points", "point_error_px", "point_priority", "point_depth_sigma")
INT8_MAX = 127.0
KINDS = {
    **dict.fromkeys([*INDEX_ARRAYS, "point_id"], "i"),
    **dict.fromkeys(["points", "point_error_px", "point_priority", "point_depth_sigma"], "f"),
    **{f"confidences_{level}": "f" for level in range(9)},
}
ROW_TYPES = {"int8": torch.int8, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Tile:
    """An observation is a point seen by a keyframe and names the feature row to use for it: its
    own one when the features are stored per observation, the point's only one when averaged.
    """

    keyframes: NDArray[np.int32]  # (K,) index in the map, ascending
    observation_offsets: NDArray[np.int64]  # (K + 1,) where each keyframe's observations begin
    observation_point: NDArray[np.int32]  # (O,) index of a point of this tile
    observation_row: NDArray[np.int32]  # (O,) index of a row of this tile
    point_id: NDArray[np.int32]  # (P,) ascending, the same in every tile of the map
    points: NDArray[np.floating]  # (P, 3) relative to origin; float32 when stored
    point_error_px: NDArray[np.float32]  # (P,) mean reprojection error, -1 where unknown
    point_priority: NDArray[np.float32]  # (P,) 0..1, which points to prefer
    # (P,) standard deviation of the depth by the distance; 0 where unknown, as in older maps
    point_depth_sigma: NDArray[np.float32]
    features: tuple[Tensor, ...]  # (R, C) as stored, see `unit_rows`; coarse to fine
    confidences: tuple[Tensor, ...]  # (R,) float16, coarse to fine
    origin: NDArray[np.float64]  # (3,) map coordinates of the points' zero

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor], levels: int, origin: NDArray[np.float64]) -> Tile:
        """From arrays by name; raises KeyError for one that is not there."""
        unknown = {"point_depth_sigma": torch.zeros(len(arrays["points"]))}
        named = {**unknown, **arrays}
        return cls(
            **{name: named[name].numpy() for name in INDEX_ARRAYS + POINT_ARRAYS},
            features=tuple(arrays[f"features_{level}"] for level in range(levels)),
            confidences=tuple(arrays[f"confidences_{level}"] for level in range(levels)),
            origin=origin,
        )

    def arrays(self) -> Arrays:
        """Arrays by name, as they are stored."""
        named = {name: getattr(self, name) for name in INDEX_ARRAYS + POINT_ARRAYS}
        for level, (features, confidences) in enumerate(
            zip(self.features, self.confidences, strict=True)
        ):
            named[f"features_{level}"] = features.numpy()
            named[f"confidences_{level}"] = confidences.numpy()
        return named

    def points_map(self) -> NDArray[np.float64]:
        """(P, 3) in map coordinates."""
        return self.points + self.origin

    def observations(self, keyframe: int) -> slice:
        """Those of a keyframe of the map that is in this tile."""
        slot = np.searchsorted(self.keyframes, keyframe)
        return slice(*self.observation_offsets[slot : slot + 2])

    def to(self, device: str) -> Tile:
        """The same with its rows on a device; the rest is chosen from on the CPU."""
        return replace(
            self,
            features=tuple(feature.to(device) for feature in self.features),
            confidences=tuple(confidence.to(device) for confidence in self.confidences),
        )

    def with_rows(self, row_type: RowType) -> Tile:
        """The same with features stored as this type."""
        as_type = as_int8 if row_type == "int8" else as_float16
        return replace(self, features=tuple(as_type(feature) for feature in self.features))

    def relative_to(self, origin: NDArray[np.float64]) -> Tile:
        """The same with points (P, 3), float64, relative to another origin (3,)."""
        return replace(self, points=self.points + (self.origin - origin), origin=origin)

    def moved(self, T_new_map: NDArray[np.float64]) -> Tile:
        """The same in another frame."""
        origin = np.round(se3.transform(T_new_map, self.origin))
        points = se3.transform(T_new_map, self.points_map()) - origin
        return replace(self, points=points, origin=origin)

    def observing(self, kept: NDArray[np.bool_]) -> Tile:
        """The same with some of its observations (O,); `part` leaves out what is not used then."""
        ends = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            observation_offsets=ends[self.observation_offsets],
            observation_point=self.observation_point[kept],
            observation_row=self.observation_row[kept],
        )

    def part(self, keyframes: NDArray[np.integer]) -> Tile:
        """Some of its keyframes, ascending, and no more than they see."""
        slots = np.searchsorted(self.keyframes, keyframes)
        begins, ends = self.observation_offsets[slots], self.observation_offsets[slots + 1]
        observations = np.concatenate([np.arange(b, e) for b, e in zip(begins, ends, strict=True)])
        points, point = np.unique(self.observation_point[observations], return_inverse=True)
        rows, row = np.unique(self.observation_row[observations], return_inverse=True)
        index = torch.from_numpy(rows)
        return Tile(
            keyframes=self.keyframes[slots],
            observation_offsets=np.concatenate([[0], np.cumsum(ends - begins)]),
            observation_point=point.astype(np.int32),
            observation_row=row.astype(np.int32),
            **{name: getattr(self, name)[points] for name in POINT_ARRAYS},
            features=tuple(feature[index] for feature in self.features),
            confidences=tuple(confidence[index] for confidence in self.confidences),
            origin=self.origin,
        )


def join(tiles: Sequence[Tile], storage: Storage) -> Tile:
    """Several tiles without common keyframes as one, relative to the origin of the first."""
    origin = tiles[0].origin
    tiles = [tiles[0], *(tile.relative_to(origin) for tile in tiles[1:])]
    together = _concatenated(tiles, origin)
    _, first, point = np.unique(together.point_id, return_index=True, return_inverse=True)
    point_of_observation = point[together.observation_point].astype(np.int32)
    unique = replace(
        together,
        observation_point=point_of_observation,
        **{name: getattr(together, name)[first] for name in POINT_ARRAYS},
    )
    if storage == "averaged":  # a point's row is in every tile that has the point, row by point
        unique = replace(
            unique,
            observation_row=point_of_observation,
            features=tuple(feature[first] for feature in together.features),
            confidences=tuple(confidence[first] for confidence in together.confidences),
        )
    return unique if (np.diff(unique.keyframes) > 0).all() else _in_order(unique)


def _concatenated(tiles: Sequence[Tile], origin: NDArray[np.float64]) -> Tile:
    def joined(name: str, shifts: Sequence[int] | None = None) -> NDArray:
        parts = [getattr(tile, name) for tile in tiles]
        if shifts is None:
            return np.concatenate(parts)
        starts = np.cumsum([0, *shifts[:-1]])
        moved = [part + start for part, start in zip(parts, starts, strict=True)]
        return np.concatenate(moved).astype(parts[0].dtype)

    levels = range(len(tiles[0].features))
    lengths = np.concatenate([np.diff(tile.observation_offsets) for tile in tiles])
    return Tile(
        keyframes=joined("keyframes"),
        observation_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        observation_point=joined("observation_point", [len(tile.points) for tile in tiles]),
        observation_row=joined("observation_row", [len(t.confidences[0]) for t in tiles]),
        **{name: joined(name) for name in POINT_ARRAYS},
        features=tuple(torch.cat([tile.features[level] for tile in tiles]) for level in levels),
        confidences=tuple(torch.cat([t.confidences[level] for t in tiles]) for level in levels),
        origin=origin,
    )


def _in_order(tile: Tile) -> Tile:
    """The same with ascending keyframes."""
    order = np.argsort(tile.keyframes)
    lengths = np.diff(tile.observation_offsets)[order]
    begins = tile.observation_offsets[order]
    ends = begins + lengths
    observations = np.concatenate([np.arange(b, e) for b, e in zip(begins, ends, strict=True)])
    return replace(
        tile,
        keyframes=tile.keyframes[order],
        observation_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        observation_point=tile.observation_point[observations],
        observation_row=tile.observation_row[observations],
    )


def read_tile(source: TileSource, entry: TileEntry, verify: bool = True) -> Tile:
    """Read a tile. Raises MapError where it is missing, altered or damaged."""
    arrays = read_tensors(source, entry.file, verify)
    try:
        tile = Tile.of(arrays, len(source.metadata.dims), np.array(entry.origin))
    except KeyError as error:
        where = source.path(entry.file)
        raise MapError(f"{where} lacks the array {error}; rebuild the map") from None
    for problem in _problems(tile, source.metadata, entry):
        raise MapError(f"{source.path(entry.file)}: {problem}; rebuild the map")
    return tile


def _problems(tile: Tile, metadata: MapMetadata, entry: TileEntry) -> Iterator[str]:
    """Why its arrays are no tile: checked once, so that whatever uses them need not."""
    shapes = {
        "points": (tile.points.shape, (entry.points, 3)),
        "observation_row": (tile.observation_row.shape, tile.observation_point.shape),
        "observation_offsets": (tile.observation_offsets.shape, (len(tile.keyframes) + 1,)),
    }
    for name in ("point_id", "point_priority", "point_error_px", "point_depth_sigma"):
        shapes[name] = (getattr(tile, name).shape, (entry.points,))
    for level, dim in enumerate(metadata.dims):
        shapes[f"features_{level}"] = (tuple(tile.features[level].shape), (entry.rows, dim))
        shapes[f"confidences_{level}"] = (tuple(tile.confidences[level].shape), (entry.rows,))
    for name, (found, expected) in shapes.items():
        if found != expected:
            yield f"{name} is of shape {found}, expected {expected}"
            return
    yield from other_kinds(tile.arrays(), KINDS)
    for level, features in enumerate(tile.features):
        if features.dtype != ROW_TYPES[metadata.row_type]:
            yield f"features_{level} are {features.dtype}, expected {metadata.row_type}"
    yield from outside("keyframes", tile.keyframes, metadata.keyframes)
    yield from outside("observation_point", tile.observation_point, entry.points)
    yield from outside("observation_row", tile.observation_row, entry.rows)
    yield from not_offsets(
        "observation_offsets", tile.observation_offsets, len(tile.observation_point)
    )
    if (np.diff(tile.keyframes) <= 0).any():
        yield "keyframes do not ascend"


def other_kinds(arrays: Mapping[str, NDArray], kinds: Mapping[str, str]) -> Iterator[str]:
    """Tell which arrays are not of their kind: "i" integers, "f" floating point, "u" bytes."""
    for name, kind in kinds.items():
        array = arrays.get(name)
        if array is not None and array.dtype.kind != kind:
            yield f"{name} is an array of {array.dtype}"


def outside(name: str, indices: NDArray[np.integer], count: int) -> Iterator[str]:
    """Tell whether some of the indices are of nothing."""
    if len(indices) and (indices.min() < 0 or indices.max() >= count):
        yield f"{name} has an index outside 0..{count - 1}"


def not_offsets(name: str, offsets: NDArray[np.integer], end: int) -> Iterator[str]:
    """Tell whether offsets do not ascend from 0 to the end."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
        yield f"{name} does not ascend from 0 to {end}"


def read_tensors(source: TileSource, name: str, verify: bool = True) -> dict[str, Tensor]:
    """The tensors of a file by name; raises MapError where it is missing, altered or damaged."""
    content = source.read(name, verify)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        where = source.path(name)
        raise MapError(f"{where} cannot be read ({error}); copy the map again") from None


def as_float16(features: Tensor) -> Tensor:
    return unit_rows(features).half()


def as_int8(features: Tensor) -> Tensor:
    """Unit rows (R, C) as int8, each scaled to its largest value; `unit_rows` undoes it."""
    largest = features.float().abs().amax(-1, keepdim=True).clamp(min=1e-12)
    return (features.float() * (INT8_MAX / largest)).round().to(torch.int8)


def unit_rows(features: Tensor) -> Tensor:
    """Rows (N, C) as float32 of unit norm: of int8 only the direction was kept."""
    rows = features.float()
    return torch.nn.functional.normalize(rows, dim=-1) if features.dtype == torch.int8 else rows
