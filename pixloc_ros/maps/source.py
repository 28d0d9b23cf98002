"""Where the files of a map come from: a folder, or a URL with a cache on disk (maps/remote.py).

A source is of one version of a map, that of the map.json it has read: whatever is put in the place
of the map meanwhile has other hashes, and is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from pixloc_ros.common.foreign_files import own_file
from pixloc_ros.errors import MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.schema import MapMetadata, TileEntry


class NotFetched(MapError):
    """A file of a map behind a URL that is not in the cache yet: it may come."""


class TileSource(Protocol):
    """The files of one version of a map."""

    metadata: MapMetadata
    sha256: str  # stands for all files of the map

    def path(self, name: str) -> str:
        """What messages call a file."""

    def read(self, name: str, verify: bool = True) -> bytes:
        """All of a file. Raises MapError where it is missing or its hash is another."""

    def problem(self, entry: TileEntry) -> str:
        """Why a tile cannot be read, as far as that shows without reading it; empty: nothing.

        Raises MapError for a link out of the folder.
        """

    def check_files(self) -> None:
        """Compare the files that are on this machine with their SHA-256; raises MapError."""


class FolderSource:
    """A map in a folder. Raises MapError where map.json is missing or altered.

    Files are read and not memory-mapped: where somebody writes over a mapped file, SIGBUS ends the
    process or the map changes unseen.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata, self.sha256 = schema.read(folder)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str, verify: bool = True) -> bytes:
        path = own_file(self.folder, name, MapError)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MapError(f"{path}: {error.strerror}; copy the map again or rebuild it") from None
        if verify:
            schema.check_hash(self.metadata, name, hashlib.sha256(content).hexdigest(), path)
        return content

    def problem(self, entry: TileEntry) -> str:
        path = own_file(self.folder, entry.file, MapError)
        found = path.stat().st_size if path.is_file() else 0
        if found == entry.bytes:
            return ""
        why = "is missing" if found == 0 else f"has {found} of {entry.bytes} bytes"
        return f"{path} {why}; copy the map again"

    def check_files(self) -> None:
        for name in self.metadata.files:
            self.read(name)
