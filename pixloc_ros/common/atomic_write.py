"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixloc_ros.errors import DataError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path next to `path` to write to, with the same suffix; renamed when the block succeeds.

    Raises DataError when the place cannot be written to.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 text file, or leave what was there."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder `.NAME.new` that takes the place of `path` when the block succeeds.

    A process that is killed at any time leaves the old folder under its name, or the new one, and
    what else it leaves is cleared away by the next. Raises DataError while another process writes
    there, and OSError.
    """
    temporary = _temporary(path)
    with _locked(temporary):
        clear_remains(path, locked=True)
        for inside in temporary.iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
        try:
            yield temporary
            _take_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def clear_remains(path: Path, locked: bool = False) -> None:
    """Clear away what a killed `atomic_folder` left, and bring back the folder it was to replace.

    Raises DataError while another process writes there, and OSError. locked: by the caller.
    """
    old, temporary = _old(path), _temporary(path)
    if not locked and temporary.exists():
        with _locked(temporary):
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
def _locked(folder: Path) -> Iterator[None]:
    """Hold the kernel's lock of a folder, which ends with the process; made where it is not."""
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
    """Whether the lock is taken, of the folder that has the name now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _take_place(temporary: Path, path: Path) -> None:
    """Put the temporary folder under the name; what had the name is then under the other one."""
    if not path.exists():
        temporary.rename(path)
        return
    with _locked(path):  # so that nobody takes the old folder for remains before it is removed
        if not _exchange(temporary, path):
            path.rename(_old(path))
            temporary.rename(path)
            shutil.rmtree(_old(path), ignore_errors=True)
        else:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders at once; False where the file system cannot."""
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
