"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixloc_ros.errors import DataError


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
