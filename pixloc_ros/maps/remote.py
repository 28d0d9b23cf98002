"""A map behind a URL, with a cache on disk.

Two layouts are read: a map's folder as it is, and one that `pixloc map publish` wrote, in which
files are named by their hashes, so that vehicles with an earlier map.json still get theirs.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pixloc_ros.common.foreign_files import MAX_JSON_BYTES, is_url, refusing
from pixloc_ros.config import TilesConfig
from pixloc_ros.errors import MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.disk_cache import DiskCache, default_folder
from pixloc_ros.maps.retries import Retries
from pixloc_ros.maps.schema import MapMetadata, TileEntry
from pixloc_ros.maps.source import FolderSource, NotFetched, TileSource
from pixloc_ros.maps.transport import NotThere, Transport

log = logging.getLogger(__name__)

BY_HASH = "files"  # the folder of files that are named by their hashes
MAX_KEYFRAME_BYTES = 100_000  # that one keyframe may have in the file of keyframes
MAX_OTHER_BYTES = 4_000_000_000  # of files whose size map.json does not tell
ASK_AGAIN_S = 60.0  # for a newer map.json, when a file is not the expected one
_SHA256 = re.compile(r"[0-9a-f]{64}")


def open_source(location: str | Path, config: TilesConfig) -> TileSource:
    """Open the files of a map in a folder or behind a URL; raises MapError."""
    if not is_url(location):
        return FolderSource(Path(location).expanduser())
    folder = Path(config.cache_folder).expanduser() if config.cache_folder else default_folder()
    return RemoteSource(str(location), DiskCache(folder, config.cache_mb * 1e6), config)


class RemoteSource:
    """The version of a map that its URL has now, or that it had when it was reached last.

    waits: whether `read` fetches what is not in the cache, or raises NotFetched. Raises MapError
    where there is no version whose map.json and keyframes are here.
    """

    def __init__(self, url: str, cache: DiskCache, config: TilesConfig) -> None:
        self.url = url.rstrip("/")
        self.waits = True
        self.newer = ""  # SHA-256 of a version that was put in the place of this one
        self.cache = cache
        self.retries = Retries.of(config)
        self._transport = Transport(self.url)
        self._begin()
        self._open(cache.version(self.url))

    def _open(self, cached: str | None) -> None:
        """Become the newest version, or the cached one where the server cannot be reached."""
        if cached is None:
            self.retries.run(lambda: self._adopt(self._newest()))
            return
        try:
            self._adopt(self._newest())
        except MapError as error:
            self._adopt(cached)
            log.warning("%s; going on with version %s of the cache", error, self.sha256[:12])

    def _begin(self) -> None:
        self._lock = threading.Lock()  # of `fetch`: one file at a time
        self._by_hash: bool | None = None  # the layout, once a file was there
        self._asked_s = -ASK_AGAIN_S

    def __getstate__(self) -> dict[str, Any]:
        """For another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def bytes_read(self) -> int:
        """That came from the network."""
        return self._transport.bytes_read

    def path(self, name: str) -> str:
        return f"{self._transport.location}/{name}"

    def problem(self, entry: TileEntry) -> str:
        """Nothing shows before a tile is fetched, but whether there can be room for it."""
        if entry.bytes <= self.cache.budget_bytes:
            return ""
        return f"{self.path(entry.file)} has {entry.bytes} bytes: it needs a larger tiles.cache_mb"

    def check_files(self) -> None:
        """All that is in the cache is checked whenever it is read."""

    def read(self, name: str, verify: bool = True) -> bytes:
        """All of a file. Raises NotFetched where it is not in the cache and this does not wait."""
        content = self._cached(name)
        if content is None and self.waits:
            self.retries.run(lambda: self.fetch(name))
            content = self._cached(name)
        if content is None:
            raise NotFetched(f"{self.path(name)} is not fetched yet")
        return content

    def has(self, name: str) -> bool:
        """Whether a file is in the cache."""
        return self.cache.has(self.metadata.files.get(name, ""))

    def fetch(self, name: str) -> None:
        """Bring a file into the cache. Raises MapError where it is not the expected one."""
        sha256 = self.metadata.files.get(name, "")
        kept = [self.metadata.files[self.metadata.keyframes_file]]
        try:
            with self._lock:
                if not self.cache.has(sha256):  # another thread may have brought it
                    self.cache.add(sha256, lambda file: self.download(name, file), kept)
        except MapError as error:
            raise type(error)(f"{error}{self._replaced()}") from None

    def download(self, name: str, file: BinaryIO) -> None:
        """Write a file that is as it was built; raises MapError, when it may be written in part.

        Not from several threads at once.
        """
        digest = hashlib.sha256()
        for piece in self._pieces(name, *self._size(name)):
            digest.update(piece)
            file.write(piece)
        schema.check_hash(self.metadata, name, digest.hexdigest(), self.path(name))

    def _cached(self, name: str) -> bytes | None:
        """A file in the cache; one that was altered there is removed."""
        sha256 = self.metadata.files.get(name, "")
        content = self.cache.read(sha256) if sha256 else None
        if content is None:
            return None
        try:
            digest = hashlib.sha256(content).hexdigest()
            schema.check_hash(self.metadata, name, digest, self.cache.folder / sha256)
        except MapError as error:
            log.warning("%s: removed from the cache", error)
            self.cache.remove(sha256)
            return None
        return content

    def _pieces(self, name: str, expected: int, exact: bool) -> Iterator[bytes]:
        """A file by its hash, or by its name where the server does not have it so."""
        if self._by_hash is not False:
            by_hash = f"{BY_HASH}/{self.metadata.files[name]}"
            try:
                for piece in self._transport.pieces(by_hash, expected, exact):
                    self._by_hash = True
                    yield piece
                return
            except NotThere:
                if self._by_hash:
                    raise
        for piece in self._transport.pieces(name, expected, exact):
            self._by_hash = False
            yield piece

    def _size(self, name: str) -> tuple[int, bool]:
        """Bytes of a file, and whether it must have as many, or at most."""
        for tile in self.metadata.tiles:
            if tile.file == name:
                return tile.bytes, True
        if name == self.metadata.keyframes_file:
            return (1 + self.metadata.keyframes) * MAX_KEYFRAME_BYTES, False
        return MAX_OTHER_BYTES, False

    def _newest(self) -> str:
        """The text of map.json."""
        content = b"".join(self._transport.pieces(schema.FILE_NAME, MAX_JSON_BYTES))
        with refusing(MapError, self.path(schema.FILE_NAME)):
            return content.decode("utf-8")

    def _adopt(self, text: str) -> None:
        """Become the version of a map.json, if its keyframes can be had."""
        metadata, sha256 = schema.parse(text, self.path(schema.FILE_NAME))
        _check_names(metadata, self.path(schema.FILE_NAME))
        self.metadata, self.sha256, self.text = metadata, sha256, text
        if not self.has(metadata.keyframes_file):
            self.fetch(metadata.keyframes_file)
        self.cache.keep_version(self.url, text)

    def _replaced(self) -> str:
        """What to say where the map at the URL is another one by now; asked for now and then."""
        if not self.newer and time.monotonic() - self._asked_s > ASK_AGAIN_S:
            self._asked_s = time.monotonic()
            try:
                _, sha256 = schema.parse(self._newest(), self.path(schema.FILE_NAME))
            except MapError:
                return ""
            self.newer = sha256 if sha256 != self.sha256 else ""
        return f"; version {self.newer[:12]} has taken its place there" if self.newer else ""


def _check_names(metadata: MapMetadata, where: str) -> None:
    """Raise MapError for names and hashes that could lead out of the folder or of the cache."""
    for name, sha256 in metadata.files.items():
        if not name or "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
            raise MapError(f"{where}: '{name}' is not the name of a file of a map")
        if not _SHA256.fullmatch(sha256):
            raise MapError(f"{where}: the hash of '{name}' is none")
    needed = {metadata.keyframes_file, *(tile.file for tile in metadata.tiles)}
    if missing := needed - metadata.files.keys():
        raise MapError(f"{where} has no hash of {', '.join(sorted(missing))}")
