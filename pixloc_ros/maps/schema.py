"""`map.json`: what a map is, and the hash of every file that belongs to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from pixloc_ros.common import atomic_write
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.foreign_files import own_file, parse_json
from pixloc_ros.common.models import first_problem
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.datum import AnyDatum

SCHEMA_VERSION = 2
FILE_NAME = "map.json"
TILE_M = 100.0  # side of a tile where nobody asked for another

Storage = Literal["observations", "averaged"]
RowType = Literal["float16", "int8"]
ROW_TYPE: RowType = "int8"  # where nobody asked for another: half the bytes for the same poses
Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Transform = Annotated[tuple[FiniteFloat, ...], Field(min_length=16, max_length=16)]  # (4, 4)
Count = Annotated[int, Field(ge=0)]
Dimension = Annotated[int, Field(ge=1, le=4096)]


class Entry(BaseModel):
    """Base of all parts of map.json: frozen, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CameraEntry(Entry):
    """One camera that took keyframes, as `Camera.create` takes it."""

    model: str
    size: tuple[float, float]
    focal: tuple[float, float]
    center: tuple[float, float]
    distortion: tuple[float, ...]

    @classmethod
    def of(cls, camera: Camera) -> CameraEntry:
        fields = ("size", "focal", "center", "distortion")
        return cls(model=camera.model, **{f: tuple(getattr(camera, f).tolist()) for f in fields})

    def camera(self) -> Camera:
        return Camera.create(self.model, self.size, self.focal, self.center, self.distortion)


class Calibration(Entry):
    """How accurate poses on this map were where the truth was known: docs/lab/covariance.md."""

    scale: float = Field(gt=0)  # of the alignment's own covariance
    floor_m: Vector  # sigma of the map forward, to the left and up
    floor_deg: Vector  # and about these axes
    frames: int  # that it was measured with


class TileEntry(Entry):
    """A shard of keyframes and what they see; positions are relative to its origin."""

    id: str  # its column and line in the grid of tiles
    file: str
    origin: Vector
    points: Count
    rows: Count
    bytes: Count  # of the file


class SessionEntry(Entry):
    """A later drive that became part of the map by `pixloc map update`."""

    name: str
    date: str  # of its first frame, ISO 8601, UTC
    frames: Count  # that were verified
    keyframes: Count  # that were added
    observations: Count  # that were added
    points_added: Count
    points_retired: Count


class MapMetadata(Entry):
    """All of map.json but the hash of itself."""

    schema_version: int = SCHEMA_VERSION
    frame: str = "map"
    axes: Literal["keep", "optical_to_ros"]
    T_map_world: Transform  # world: of the model that the map was built from
    datum: AnyDatum | None = None
    T_base_cam: Transform | None = None  # of the camera that took the keyframes
    model_id: str
    weights_sha256: str
    max_side_px: int = Field(ge=16, le=100_000)  # to which larger images were reduced
    strides: tuple[Dimension, ...]  # coarse to fine
    dims: tuple[Dimension, ...] = Field(min_length=1)
    storage: Storage
    row_type: RowType = "float16"  # as in older maps, which do not tell
    tile_m: float = Field(default=TILE_M, ge=0)  # side of a tile, 0: all in one
    calibration: Calibration | None = None
    cameras: tuple[CameraEntry, ...]
    history: tuple[SessionEntry, ...] = ()  # in the order in which they were added
    keyframes: int = Field(ge=1)
    keyframes_file: str
    observations: Count
    points: Count  # each once, however many tiles hold it
    point_id_end: Count  # above the ids of all points
    tiles: tuple[TileEntry, ...]
    files: dict[str, str]  # SHA-256 by file name


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(metadata: MapMetadata, name: str, digest: str, where: object) -> None:
    """Raise MapError where a file of the map is not the one that was built: every file, wherever
    it comes from, is judged here.

    digest: SHA-256 of what was read. where: what the message calls the file.
    """
    if digest != metadata.files.get(name):
        raise MapError(f"{where} was altered after it was built; copy the map again")


def as_matrix(values: Sequence[float] | None) -> NDArray[np.float64] | None:
    """(4, 4) from 16 numbers."""
    return None if values is None else np.array(values, dtype=np.float64).reshape(4, 4)


def write(metadata: MapMetadata, folder: Path) -> str:
    """Write map.json, whole or not at all; returns the SHA-256 that stands for the whole map.

    Raises MapError where it cannot be written.
    """
    content = metadata.model_dump(mode="json")
    sha256 = _digest(content)
    text = json.dumps({**content, "sha256": sha256}, indent=1, ensure_ascii=False)
    with _writing(folder):
        write_text(folder / FILE_NAME, text + "\n")
    return sha256


def check_writable(folder: Path) -> None:
    """Raise MapError before long work where `write` would fail after it."""
    with _writing(folder):
        atomic_write.check_writable(folder / FILE_NAME)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise MapError(f"{error}; {folder} is as it was") from None


def read(folder: Path) -> tuple[MapMetadata, str]:
    """Read and check map.json; returns it with the SHA-256 of the map.

    Raises MapError when it is missing, altered, or of another schema version.
    """
    path = own_file(folder, FILE_NAME, MapError)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        what = f"is not a map (no {FILE_NAME})" if folder.is_dir() else "is not a folder"
        raise MapError(f"{folder} {what}; make a map with `pixloc map build`") from None
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise MapError(f"{path} is damaged; copy the map again or rebuild it") from None
    return parse(text, path)


def parse(text: str, where: object) -> tuple[MapMetadata, str]:
    """As `read`, of a text that was read from `where`."""
    try:
        content = parse_json(text)
        version, sha256 = content.pop("schema_version"), content.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise MapError(f"{where} is damaged; copy the map again or rebuild it") from None
    if version != SCHEMA_VERSION:
        raise MapError(
            f"{where}: schema version {version}, this program reads version {SCHEMA_VERSION}; "
            f"rebuild the map with `pixloc map build`"
        )
    return _validated({"schema_version": version, **content}, sha256, where), sha256


def _validated(content: dict[str, Any], sha256: str, where: object) -> MapMetadata:
    try:
        metadata = MapMetadata.model_validate(content)
    except ValidationError as error:
        raise MapError(f"{where}: {first_problem(error)}; rebuild the map") from None
    if _digest(content) != sha256:  # of what is there: older maps lack newer fields
        raise MapError(f"{where} was altered after it was built; copy the map again or rebuild it")
    return metadata


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
