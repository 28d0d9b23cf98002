"""A hidden folder beside a map in the making: locked by its build, and what is done so far."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pixloc_ros.errors import MapError
from pixloc_ros.maps.feature_store import Arrays

LOCK_FILE = "lock"


@contextmanager
def work_folder(output: str | Path) -> Iterator[Path]:
    """`.NAME.work` beside the output; removed after the block, kept for the next build if it fails.

    Only one process at a time has it. The lock is the kernel's, so that of a dead process is none.
    Raises MapError where another one builds this map, and where nothing can be written.
    """
    output = Path(output).expanduser().absolute()
    folder = output.with_name(f".{output.name}.work")
    with writing(folder):
        folder.mkdir(exist_ok=True)
        lock = _open_lock(folder)
    with lock:
        _acquire(lock, folder)
        try:
            yield folder
        except BaseException as error:
            if len(list(folder.iterdir())) == 1:  # nothing but the lock: nothing to go on with
                shutil.rmtree(folder, ignore_errors=True)
            else:
                error.add_note(f"what is done is kept in {folder}: the same command goes on there")
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _open_lock(folder: Path) -> TextIO:
    """The lock file, never one that a link leads to."""
    if folder.is_symlink():
        raise MapError(f"{folder} is a link; remove it")
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(folder / LOCK_FILE, flags, 0o666), "a+")


def _acquire(lock: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same_file = os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK_FILE).stat())
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise MapError(
            f"another build, process {holder}, writes this map ({folder}); wait for it, or choose "
            f"another output"
        ) from None
    except FileNotFoundError:
        same_file = False
    if not same_file:
        raise MapError(f"another build of this map has just ended ({folder}); start again")
    with writing(folder):
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns errors of writing below a work folder into one line."""
    try:
        yield
    except OSError as error:
        raise MapError(
            f"{folder} cannot be written ({error.strerror or error}); mend this and start again: "
            f"what is done is kept there"
        ) from None


class Parts:
    """Arrays by key in a work folder: each is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> Arrays:
        """Raises MapError for a part that was damaged after it was written."""
        try:
            return load_file(self._path(key))
        except (SafetensorError, OSError) as error:
            raise MapError(
                f"{self._path(key)} is damaged ({error}); remove {self.folder}"
            ) from None

    def put(self, key: str, arrays: Arrays) -> None:
        """Raises MapError where it cannot be written, as on a full disk."""
        part = self._path(key).with_suffix(".part")
        with writing(self.folder):
            with part.open("wb") as file:
                file.write(save(arrays))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
