"""A folder of files named by their SHA-256, bounded in size, that several processes may share.

There are no locks: a file appears whole, by renaming; whoever names a hash gets that content or
nothing; and a file that another process removes while it is read stays readable to its reader.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.foreign_files import read_text, refusing
from pixloc_ros.errors import MapError

_PART = ".part"
_PART_AGE_S = 3600.0  # a part that nobody wrote to for so long is of a process that is dead


class DiskCache:
    """Files by SHA-256, those that were used last, up to a budget of bytes.

    And the newest map.json of every URL, which is small and stays.
    """

    def __init__(self, folder: Path, budget_bytes: float) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes

    def has(self, sha256: str) -> bool:
        return self._path(sha256).exists()

    def read(self, sha256: str) -> bytes | None:
        """All of a file, which was used now; None where it is not there, or cannot be read."""
        path = self._path(sha256)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content

    def remove(self, sha256: str) -> None:
        """Remove a file, as one whose content is not that of its name."""
        with suppress(OSError):
            self._path(sha256).unlink()

    def add(self, sha256: str, write: Callable[[BinaryIO], None], kept: Iterable[str] = ()) -> None:
        """Write a file, which appears when `write` has returned, then remove what is too much.

        kept: hashes of files that count as used now. Raises MapError where it cannot be written.
        """
        with refusing(MapError, self.folder, "is there room on the disk?"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(_PART, ".", self.folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    write(file)
                os.replace(part, self._path(sha256))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part)
            for used in (*kept, sha256):
                with suppress(OSError):
                    os.utime(self._path(used))
            self._shrink()

    def version(self, url: str) -> str | None:
        """The map.json that was used last of a URL, where there is one."""
        try:
            return read_text(self._version(url), MapError)
        except MapError:
            return None

    def keep_version(self, url: str, text: str) -> None:
        write_text(self._version(url), text)

    def _shrink(self) -> None:
        """Remove the files that were unused for the longest time until the others fit."""
        files = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):  # another process was faster
                if entry.is_file(follow_symlinks=False):
                    files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        too_much = sum(size for _, size, _ in files) - self.budget_bytes
        for age, size, path in sorted(files):
            is_old = time.time() - age > _PART_AGE_S
            if is_old if path.endswith(_PART) else too_much > 0:
                with suppress(OSError):
                    os.unlink(path)
                too_much -= size

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256

    def _version(self, url: str) -> Path:
        return self.folder / "maps" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def default_folder() -> Path:
    """Where caches of this user lie."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "pixloc" / "tiles"
