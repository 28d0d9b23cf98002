"""A session folder: accepted frames of a drive that a map can be updated with.

    session.json     on which map the poses are
    NAME.jpg         an image, or NAME.png
    NAME.json        its pose, camera and verification; written last: with it the frame is there

Images are written as they came where they came as JPEG or PNG. A session never touches its map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from pixloc_ros.common import atomic_write, image_files
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.foreign_files import confined, read_json
from pixloc_ros.common.image_files import Image
from pixloc_ros.common.models import first_problem
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.posed_images import read_image
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import CameraEntry, Entry, Transform
from pixloc_ros.maps.verified_frames import DriveSession, VerifiedFrame

HEADER_FILE = "session.json"
SAME_FRAME_M = 1e-6  # between a keyframe then and now, on a map of the same frame
Covariance = Annotated[tuple[FiniteFloat, ...], Field(min_length=36, max_length=36)]


class SessionHeader(Entry):
    """On which map the poses of a session are."""

    version: Literal[1] = 1
    map_sha256: str
    keyframe: Transform  # T_map_cam of a keyframe: a map that has it is of the same frame

    @classmethod
    def of(cls, map_: Map) -> SessionHeader:
        return cls(map_sha256=map_.sha256, keyframe=numbers(map_.keyframe_T_map_cam[0]))

    def fits(self, map_: Map) -> bool:
        """Whether poses of the session are poses on a map."""
        difference = np.abs(map_.keyframe_T_map_cam - np.reshape(self.keyframe, (4, 4)))
        return bool((difference.max((1, 2)) < SAME_FRAME_M).any())


class FrameEntry(Entry):
    """All about one frame but its image."""

    image: str  # the file's name
    stamp_ns: int
    camera_name: str
    camera: CameraEntry
    T_map_base: Transform
    T_base_cam: Transform
    covariance: Covariance  # (6, 6), map axes: m^2 and rad^2, translation first
    wrong_probability: float | None
    inlier_share: float
    images: int = Field(ge=1)  # of the drive so far, verified or not

    @property
    def name(self) -> str:
        return f"{self.camera_name}{self.stamp_ns}"


def numbers(matrix: Matrix) -> tuple[float, ...]:
    """A matrix as JSON takes it, row by row."""
    return tuple(np.asarray(matrix, np.float64).ravel().tolist())


class SessionFolder:
    """Writes frames into a new session folder, each whole or not at all."""

    def __init__(self, folder: Path, header: SessionHeader) -> None:
        """Nothing is written before the first frame."""
        self.folder = folder
        self._header = header

    def write(self, frame: FrameEntry, image: Image | bytes) -> int:
        """Write a frame; returns its size in bytes. Raises DataError where that cannot be.

        image: (H, W, 3) RGB, or the content of the file that it came as.
        """
        if not (self.folder / HEADER_FILE).exists():
            write_text(self.folder / HEADER_FILE, self._header.model_dump_json() + "\n")
        content = image
        if not isinstance(content, bytes):
            content = image_files.encode(content, jpeg_quality=image_files.IMAGE_QUALITY)
        text = frame.model_dump_json() + "\n"
        with atomic_write.atomic_path(self.folder / frame.image) as part:
            part.write_bytes(content)
        write_text(self.folder / f"{frame.name}.json", text)
        return len(content) + len(text)


class SessionStore:
    """A folder of session folders that together stay below a size: the oldest frames go."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._frames: deque[tuple[Path, int]] = deque(_stored(root))  # records, the oldest first
        self._bytes = sum(size for _, size in self._frames)

    def new_session(self, header: SessionHeader) -> SessionFolder:
        """A session named by the time of day, UTC."""
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        taken = len(list(self.root.glob(f"{name}*"))) if self.root.is_dir() else 0
        return SessionFolder(self.root / (f"{name}-{taken}" if taken else name), header)

    def write(self, session: SessionFolder, frame: FrameEntry, image: Image | bytes) -> int:
        """Write a frame of a session; returns how many older ones had to go. Raises DataError."""
        size = session.write(frame, image)
        self._frames.append((session.folder / f"{frame.name}.json", size))
        self._bytes += size
        removed = 0
        while self._bytes > self._max_bytes and len(self._frames) > 1:
            record, size = self._frames.popleft()
            _remove(record)
            self._bytes -= size
            removed += 1
        return removed


def _stored(root: Path) -> list[tuple[Path, int]]:
    """The records of all sessions below a folder with the sizes of their frames, oldest first."""
    found = []
    for header in sorted(root.glob(f"*/{HEADER_FILE}")):
        for record in sorted(header.parent.glob("*.json")):
            if record != header:
                found.append((record, sum(path.stat().st_size for path in _files(record))))
    return found


def _files(record: Path) -> list[Path]:
    """The record first: without it the frame is no longer there."""
    return [record, *(path for s in (".jpg", ".png") if (path := record.with_suffix(s)).exists())]


def _remove(record: Path) -> None:
    """Remove a frame, and the session with its last one; raises DataError."""
    try:
        for path in _files(record):
            path.unlink(missing_ok=True)
        left = list(record.parent.iterdir())
        if [path.name for path in left] == [HEADER_FILE]:
            left[0].unlink()
            record.parent.rmdir()
    except OSError as error:
        raise DataError(f"cannot remove {record} ({error.strerror})") from None


def read_session(folder: Path, map_: Map) -> DriveSession:
    """The frames of a session folder in the order of their stamps; images are read when asked for.

    Raises MapError for what is no session folder, is damaged, or is of another map.
    """
    header = _checked(folder / HEADER_FILE, SessionHeader, _what_is_missing(folder))
    if not header.fits(map_):
        raise MapError(f"{folder} was recorded on another map ({header.map_sha256[:12]}...)")
    records = sorted(path for path in folder.glob("*.json") if path.name != HEADER_FILE)
    entries = sorted((_checked(path, FrameEntry) for path in records), key=lambda e: e.stamp_ns)
    frames = tuple(_frame(entry, folder) for entry in entries)
    return DriveSession(folder.absolute().name, frames, _images(entries))


def _images(entries: Sequence[FrameEntry]) -> int:
    """How many images the drive had, as far as the frames tell."""
    return max((entry.images for entry in entries), default=0)


def _what_is_missing(folder: Path) -> str:
    return f"{folder} is no session folder (no {HEADER_FILE}); node.record_sessions makes them"


Found = TypeVar("Found", bound=Entry)


def _checked(path: Path, kind: type[Found], missing: str = "") -> Found:
    if missing and not path.is_file():
        raise MapError(missing)
    try:
        return kind.model_validate(read_json(path, MapError))
    except ValidationError as error:
        raise MapError(f"{path} is damaged ({first_problem(error)}); remove it") from None


def _frame(entry: FrameEntry, folder: Path) -> VerifiedFrame:
    path = confined(folder, entry.image, MapError)
    T_map_base, T_base_cam = (np.reshape(T, (4, 4)) for T in (entry.T_map_base, entry.T_base_cam))
    if not (se3.is_rigid(T_map_base) and se3.is_rigid(T_base_cam)):
        raise MapError(f"{folder / entry.name}.json is damaged (it has no pose); remove it")
    camera = entry.camera.camera()
    reading = partial(read_image, path, camera)
    return VerifiedFrame(entry.name, entry.stamp_ns, camera, T_map_base, T_base_cam, reading)
