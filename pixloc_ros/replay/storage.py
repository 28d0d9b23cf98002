"""Read the raw messages of a bag, as far as possible.

A recording that ended with a full disk or an empty battery has no index, and perhaps no
metadata.yaml. An mcap file is then read from its beginning up to the damage; a sqlite3 file must be
recovered by sqlite3 first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

from pixloc_ros.common.foreign_files import parse_yaml
from pixloc_ros.errors import BagError

SUFFIXES = (".mcap", ".db3")


class RawMessage(NamedTuple):
    """A serialized message (CDR) and the time when it was recorded."""

    topic: str
    log_ns: int
    data: bytes


class BagSource(Protocol):
    """A source of messages in the order of recording."""

    types: dict[str, str]  # message type per topic
    counts: Counter[str]  # messages per topic
    damage: str | None  # why reading ended early, if it did

    def messages(
        self, topics: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[RawMessage]:
        """Yield messages of some topics between two recording times; None: no limit."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class IndexedSource:
    """A healthy bag, or one file of a bag."""

    def __init__(self, path: Path):
        self._reader = Reader(path)
        self._reader.open()
        self._path = path
        self.types = {c.topic: c.msgtype for c in self._reader.connections}
        self.counts: Counter[str] = Counter()
        for connection in self._reader.connections:
            self.counts[connection.topic] += connection.msgcount
        self.damage: str | None = None

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        wanted = [c for c in self._reader.connections if c.topic in topics]
        if not wanted:
            return
        try:
            for connection, log_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
                yield RawMessage(connection.topic, log_ns, data)
        except Exception as error:  # from rosbags, apsw, zstd or lz4: all mean that the file ends
            self.damage = f"{self._path.name} is damaged: {_line(error)}"

    def close(self) -> None:
        self._reader.close()


class MissingFile:
    """A file that metadata.yaml names and that is not there."""

    def __init__(self, name: str):
        self.types: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.damage: str | None = f"{name}, a file of this bag, is missing"

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        return iter(())

    def close(self) -> None:
        """Do nothing."""


class DamagedMcap:
    """An mcap file without index, read record by record up to the first incomplete one."""

    def __init__(self, path: Path):
        self._path = path
        self.types: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.damage: str | None = None
        for topic, _, _ in self._scan():
            self.counts[topic] += 1

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        return _selected(self._scan(), topics, start_ns, stop_ns)

    def _scan(self) -> Iterator[RawMessage]:
        schemas: dict[int, str] = {}
        channels: dict[int, str] = {}
        with self._path.open("rb") as file:
            try:
                for record in StreamReader(file).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record.name
                    elif isinstance(record, Channel):
                        channels[record.id] = record.topic
                        self.types[record.topic] = schemas.get(record.schema_id, "unknown")
                    elif isinstance(record, Message):
                        yield RawMessage(channels[record.channel_id], record.log_time, record.data)
            except Exception as error:  # the parser raises anything for half a record
                self.damage = f"{self._path.name} is cut off or damaged ({_line(error)})"

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def open_sources(path: Path) -> list[BagSource]:
    """Return the files of a bag in order, or a healthy bag as a single source.

    Raises BagError if nothing there can be read, and for a damaged sqlite3 file.
    """
    if not path.exists():
        raise BagError(f"bag {path} does not exist")
    if path.suffix == ".bag":
        raise BagError(
            f"{path} is a ROS 1 bag; convert it: "
            f"rosbags-convert --src {path} --dst {path.with_suffix('')}"
        )
    healthy = _indexed(path)
    if healthy is not None:
        return [healthy]
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in inside if file.suffix in SUFFIXES]
    if not files:
        raise BagError(f"{path} is not a rosbag2: it holds no .mcap or .db3 file")
    sources = [_indexed(file) or _damaged(file) for file in files]
    readable = [source for source in sources if source.types]
    if not readable:
        raise BagError(f"{path} is cut off or damaged before its first message; copy it again")
    return [*readable, *(MissingFile(name) for name in _missing_files(path))]


def _missing_files(bag: Path) -> list[str]:
    """Return the files that the metadata of a bag name and that are not there."""
    try:
        metadata = parse_yaml((bag / "metadata.yaml").read_text())
        names = metadata["rosbag2_bagfile_information"]["relative_file_paths"]
        return [name for name in names if not (bag / name).exists()]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _indexed(path: Path) -> BagSource | None:
    try:
        return IndexedSource(path)
    except Exception:  # rosbags raises its own, OSError, apsw.Error, AssertionError, KeyError ...
        return None


def _damaged(file: Path) -> BagSource:
    """Open an mcap file up to its damage. Raises BagError for a sqlite3 file, with the remedy."""
    if file.suffix == ".mcap":
        return DamagedMcap(file)
    raise BagError(
        f"{file} is cut off or damaged; recover what is left with "
        f"`sqlite3 {file.name} .recover | sqlite3 recovered.db3`, and give that file"
    )


def _selected(
    raws: Iterator[RawMessage], topics: Collection[str], start_ns: int | None, stop_ns: int | None
) -> Iterator[RawMessage]:
    for raw in raws:
        late = stop_ns is not None and raw.log_ns >= stop_ns
        early = start_ns is not None and raw.log_ns < start_ns
        if raw.topic in topics and not late and not early:
            yield raw


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
