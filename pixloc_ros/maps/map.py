"""A map: its keyframes in memory, what they see in tiles that are opened where they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from pixloc_ros.common.device import open_device
from pixloc_ros.config import TilesConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps import schema
from pixloc_ros.maps.cache import TileCache
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.maps.occlusion import GRID
from pixloc_ros.maps.remote import open_source
from pixloc_ros.maps.schema import MapMetadata
from pixloc_ros.maps.source import TileSource
from pixloc_ros.maps.tiles import Tile, join, not_offsets, other_kinds, outside, read_tensors


@dataclass(frozen=True)
class Map:
    """Keyframes with their poses, names and neighbours; `tiles` hold points and features."""

    source: TileSource
    metadata: MapMetadata
    sha256: str  # stands for all files of the map
    keyframe_names: tuple[str, ...]
    keyframe_T_map_cam: NDArray[np.float64]  # (M, 4, 4)
    keyframe_camera: NDArray[np.int32]  # (M,) index into cameras
    keyframe_tile: NDArray[np.int32]  # (M,) index of the tile that has what it sees
    keyframe_descriptors: NDArray[np.float16] | None  # (M, D) of whole images; not in older maps
    keyframe_depth_m: NDArray[np.float16] | None  # (M, *occlusion.GRID) of maps from surfaces
    keyframe_condition: NDArray[np.int32] | None  # (M,) 0: of the build, others: of updates
    covisible_offsets: NDArray[np.int64]  # (M + 1,) where each keyframe's neighbours begin
    covisible_keyframe: NDArray[np.int32]  # (C,)
    covisible_points: NDArray[np.int32]  # (C,) count of shared points
    tiles: TileCache

    @classmethod
    def load(
        cls,
        location: str | Path,
        verify: bool = True,
        tiles: TilesConfig | None = None,
        device: str = "cpu",
    ) -> Map:
        """Open a map in a folder or, as `https://host/maps/campus`, behind a URL.

        Of its tiles none is opened before it is needed, unless it is the only one.

        verify: compare every file with its SHA-256, a tile when it is opened. Missing or altered
        tiles are refused one by one, see `tiles.refused`.
        Raises MapError when no tile is left, when map.json or the file of keyframes is missing
        or altered, and for another schema version; ConfigError for a device that is not here.
        """
        if not isinstance(location, str | os.PathLike):
            kind = type(location).__name__
            raise MapError(f"a map is loaded from its folder or URL, not from a {kind}")
        open_device(device)
        tiles = tiles or TilesConfig()
        source = open_source(location, tiles)
        metadata = source.metadata
        arrays = read_tensors(source, metadata.keyframes_file, verify)
        try:
            named, packed = _keyframe_arrays(arrays), arrays["keyframe_names"]
        except KeyError as error:
            raise MapError(f"{location} lacks the array {error}; rebuild the map") from None
        names = unpack_names(packed.numpy())
        for problem in _problems(metadata, named, names):
            raise MapError(f"{source.path(metadata.keyframes_file)}: {problem}; rebuild the map")
        boxes = _boxes(named["keyframe_T_map_cam"], named["keyframe_tile"], len(metadata.tiles))
        cache = TileCache(source, boxes, tiles, device, verify)
        cache.check_sizes()
        if len(cache) == 1:
            cache.tile(0)
        return cls(source, metadata, source.sha256, names, tiles=cache, **named)

    @property
    def point_count(self) -> int:
        """Distinct points of all tiles."""
        return self.metadata.points

    @property
    def point_id_end(self) -> int:
        """Above the ids of all points."""
        return self.metadata.point_id_end

    @property
    def datum(self) -> AnyDatum | None:
        return self.metadata.datum

    @property
    def T_base_cam(self) -> NDArray[np.float64] | None:
        """(4, 4) of the camera that took the keyframes, where known."""
        return schema.as_matrix(self.metadata.T_base_cam)

    @property
    def model_id(self) -> str:
        return self.metadata.model_id

    @property
    def weights_sha256(self) -> str:
        return self.metadata.weights_sha256

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Cameras that took the keyframes."""
        return tuple(entry.camera() for entry in self.metadata.cameras)

    @cached_property
    def _places(self) -> KDTree:
        return KDTree(self.keyframe_T_map_cam[:, :3, 3])

    def keyframes_within(
        self, position: NDArray[np.float64], radius_m: float
    ) -> tuple[NDArray[np.intp], float]:
        """Indices, ascending, of the keyframes that near, and the distance to the nearest of all.

        What it costs depends on how many are near, not on the size of the map.
        """
        nearest_m = float(self._places.query(position)[0])
        within = self._places.query_ball_point(position, radius_m, return_sorted=True)
        return np.array(within, dtype=np.intp), nearest_m

    def nearest_keyframes(self, position: NDArray[np.float64], count: int) -> NDArray[np.intp]:
        """Indices of so many keyframes, or of all, the nearest first."""
        ranks = np.arange(1, min(count, len(self.keyframe_names)) + 1)
        return self._places.query(position, ranks)[1]

    def points_seen_by(self, keyframe: int) -> NDArray[np.float64]:
        """(N, 3) in map coordinates. Raises MapError where its tile is refused, or it is none."""
        count = len(self.keyframe_names)
        if not isinstance(keyframe, int | np.integer) or not 0 <= keyframe < count:
            raise MapError(f"there is no keyframe {keyframe!r}: the map has 0 to {count - 1}")
        tile = self.tiles.tile(int(self.keyframe_tile[keyframe]))
        return tile.points_map()[tile.observation_point[tile.observations(keyframe)]]

    def points_map(self) -> NDArray[np.float64]:
        """(P, 3) in map coordinates, of all tiles that are not refused; for pictures."""
        tiles = [tile for _, tile in self.tiles.sound()]
        if not tiles:  # of a map behind a URL, before the first one is here
            return np.zeros((0, 3))
        _, first = np.unique(np.concatenate([t.point_id for t in tiles]), return_index=True)
        return np.concatenate([tile.points_map() for tile in tiles])[first]

    def whole(self) -> Tile:
        """All tiles as one, in memory; raises MapError if one is refused."""
        tiles = [self.tiles.tile(index) for index in range(len(self.tiles))]
        return join(tiles, self.metadata.storage)

    def check_files(self) -> None:
        """Compare every file on this machine with its SHA-256; raises MapError if one differs."""
        self.source.check_files()

    def close(self) -> None:
        """Let go of all tiles and open none ahead any more."""
        self.tiles.close()


def _keyframe_arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    required = {name: arrays[name] for name in KEYFRAME_ARRAYS}
    return required | {name: arrays.get(name) for name in OPTIONAL_ARRAYS}


KEYFRAME_ARRAYS = (
    "keyframe_T_map_cam",
    "keyframe_camera",
    "keyframe_tile",
    "covisible_offsets",
    "covisible_keyframe",
    "covisible_points",
)
MAX_DISTANCE_M = 1e8  # from the map's zero
KINDS = {
    "keyframe_T_map_cam": "f",
    "keyframe_camera": "i",
    "keyframe_tile": "i",
    "covisible_offsets": "i",
    "covisible_keyframe": "i",
    "covisible_points": "i",
    "keyframe_descriptors": "f",
    "keyframe_depth_m": "f",
    "keyframe_condition": "i",
}
OPTIONAL_ARRAYS = ("keyframe_descriptors", "keyframe_depth_m", "keyframe_condition")


def _problems(
    metadata: MapMetadata, arrays: Mapping[str, Any], names: Sequence[str]
) -> Iterator[str]:
    """Why its arrays are no map: checked once, so that whatever uses them need not."""
    count = metadata.keyframes
    shapes: dict[str, tuple[int, ...]] = {
        "keyframe_T_map_cam": (count, 4, 4),
        "keyframe_camera": (count,),
        "keyframe_tile": (count,),
        "covisible_offsets": (count + 1,),
        "covisible_points": arrays["covisible_keyframe"].shape,
        "keyframe_depth_m": (count, *GRID),
        "keyframe_condition": (count,),
    }
    for name, shape in shapes.items():
        if arrays[name] is not None and arrays[name].shape != shape:
            yield f"{name} is of shape {arrays[name].shape}, expected {shape}"
            return
    for problem in other_kinds(arrays, KINDS):
        yield problem
        return
    descriptors = arrays["keyframe_descriptors"]
    if descriptors is not None and (descriptors.ndim != 2 or len(descriptors) != count):
        yield f"keyframe_descriptors is of shape {descriptors.shape}, of {count} keyframes"
    if len(set(names)) != count:
        yield f"{len(set(names))} names of {count} keyframes"
    for name in ("keyframe_T_map_cam", "keyframe_descriptors"):
        if arrays[name] is not None and not np.isfinite(arrays[name]).all():
            yield f"{name} has values that are not finite"
    if not se3.are_rigid(arrays["keyframe_T_map_cam"]).all():
        yield "keyframe_T_map_cam has poses that are not rigid"
    if np.abs(arrays["keyframe_T_map_cam"][:, :3, 3]).max() > MAX_DISTANCE_M:
        yield f"keyframe_T_map_cam has positions farther than {MAX_DISTANCE_M:g} m"
    yield from _outside(metadata, arrays)
    yield from not_offsets(
        "covisible_offsets", arrays["covisible_offsets"], len(arrays["covisible_keyframe"])
    )


def _outside(metadata: MapMetadata, arrays: Mapping[str, Any]) -> Iterator[str]:
    """Which arrays have an index of nothing."""
    ends = {
        "keyframe_camera": len(metadata.cameras),
        "keyframe_condition": metadata.keyframes,
        "keyframe_tile": len(metadata.tiles),
        "covisible_keyframe": metadata.keyframes,
    }
    for name, end in ends.items():
        if arrays[name] is not None:
            yield from outside(name, arrays[name], end)


def _boxes(
    T_map_cam: NDArray[np.float64], tile: NDArray[np.int32], count: int
) -> NDArray[np.float64]:
    """(count, 4) x_min, y_min, x_max, y_max of the keyframes of every tile."""
    boxes = np.full((count, 4), np.inf)
    np.minimum.at(boxes[:, :2], tile, T_map_cam[:, :2, 3])
    np.minimum.at(boxes[:, 2:], tile, -T_map_cam[:, :2, 3])
    return boxes * [1, 1, -1, -1]


def pack_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names as one array of bytes, so that map.json stays small."""
    return np.frombuffer(bytearray("\0".join(names), "utf-8"), np.uint8)


def unpack_names(packed: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(packed.tobytes().decode(errors="replace").split("\0"))
