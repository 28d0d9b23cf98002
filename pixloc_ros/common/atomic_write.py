"""Write files and folders atomically: they exist as a whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from pixloc_ros.errors import DataError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # constants of renameat2(2)
_PART = re.compile(r"\..*\.\d+\.part(\..*)?")  # names that `_part` creates
_BLOCK_BYTES = 65_536


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path next to `path`, with the same suffix, that is renamed if the block succeeds.

    Leftovers of a killed process are removed by the next one that writes to the folder. Raises
    DataError if the path cannot be written to.
    """
    path = Path(path)
    _require_regular_file(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path) as part:
            yield part
            part.replace(path)


def check_writable(path: str | Path) -> None:
    """Raise DataError if a file could not be written after long work; create nothing."""
    path = Path(path).absolute()
    folder = next(parent for parent in path.parents if parent.exists())
    _require_regular_file(path)
    with write_errors(path), _part(folder / path.name) as part, part.open("wb") as file:
        file.write(bytes(_BLOCK_BYTES))
        file.flush()
        os.fsync(file.fileno())


def remove(path: str | Path) -> None:
    """Remove a file if it exists. Raises DataError if that fails."""
    path = Path(path)
    _require_regular_file(path)
    with write_errors(path):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 text file, or leave the old one."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder `.NAME.new` that replaces `path` if the block succeeds.

    A process that is killed at any time leaves either the old or the new folder under the name; its
    other leftovers are removed by the next process. Raises DataError while another process writes
    there, and OSError.
    """
    with temporary_folder(path) as temporary:
        clear_remains(path, locked=True)
        yield temporary
        _replace(temporary, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder `.NAME.new` beside `path`, which is removed after the block.

    One that a killed process left is reused. Raises the same errors as `atomic_folder`.
    """
    temporary = _temporary(path)
    with locked_folder(temporary):
        for inside in temporary.iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def clear_remains(path: Path, locked: bool = False) -> None:
    """Remove what a killed `atomic_folder` left, and restore the folder that it was replacing.

    locked: whether the caller holds the lock already.

    Raises DataError while another process writes there, and OSError.
    """
    old, temporary = _old(path), _temporary(path)
    if not locked and temporary.exists():
        with locked_folder(temporary):
            shutil.rmtree(temporary)
    if old.is_dir() and not path.exists():
        old.rename(path)
    elif old.is_dir():
        shutil.rmtree(old)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the kernel's lock on a folder, which ends with the process; create it if needed.

    Raises DataError while another process holds it.
    """
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _try_lock(descriptor, folder):
            raise DataError(
                f"another process writes to {folder}; wait for it, or choose another output"
            )
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, folder: Path) -> bool:
    """Return whether the lock was taken on the folder that has the name now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _replace(temporary: Path, path: Path) -> None:
    """Put the temporary folder under the name; the old folder is then under the temporary name."""
    if not path.exists():
        temporary.rename(path)
        return
    # Locked, so that nobody takes the old folder for a leftover before it is removed.
    with locked_folder(path):
        if not _exchange(temporary, path):
            path.rename(_old(path))
            temporary.rename(path)
            shutil.rmtree(_old(path), ignore_errors=True)
        else:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders at once; return False if the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _require_regular_file(path: Path) -> None:
    """Raise DataError if a folder, a device or a pipe has the name: they are never replaced.

    As root, a file written to /dev/null would replace it for all programs.
    """
    with write_errors(path):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or a pipe"
            raise DataError(f"cannot write {path}: it is {kind}; name a file")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system in a block into one line. Raises DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Create an empty file beside `path`, never following a link; remove it after the block.

    It is locked, which distinguishes it from those of dead processes.
    """
    _clear_parts(path.parent, os.getpid())
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o666)  # the umask decides who may read it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    finally:
        os.close(descriptor)
        with suppress(OSError):
            part.unlink(missing_ok=True)


@cache  # once per folder and process, because folders of images are large
def _clear_parts(folder: Path, process: int) -> None:
    """Remove the part files that no living process holds."""
    for part in folder.iterdir():
        if _PART.fullmatch(part.name) and not part.is_symlink():
            with suppress(OSError):
                _remove_unlocked(part)


def _remove_unlocked(part: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
    finally:
        os.close(descriptor)
