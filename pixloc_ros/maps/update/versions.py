"""Earlier versions of a map, in folders beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pixloc_ros.common.atomic_write import atomic_folder
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.source import FolderSource


def keep_version(folder: Path) -> Path:
    """Keep the map in a folder as a version beside it, of the same files; returns where.

    Raises MapError where something else has the name.
    """
    metadata, sha256 = schema.read(folder)
    kept = _version(folder, len(metadata.history))
    if kept.exists() and _sha256(kept) != sha256:
        raise MapError(f"{kept} is in the way of the version to be kept; move it, or pass --output")
    _copy(folder, kept)
    return kept


def undo(folder: Path) -> Path:
    """Put the version before the last update back; returns the folder that it was kept in.

    Raises MapError where there is none.
    """
    folder = folder.expanduser().absolute()
    metadata, _ = schema.read(folder)
    for number in reversed(range(len(metadata.history))):
        kept = _version(folder, number)
        if (kept / schema.FILE_NAME).is_file():
            source = FolderSource(kept)
            if source.metadata.history != metadata.history[:number]:
                raise MapError(f"{kept} is no earlier version of {folder}; the map is as it was")
            source.check_files()
            _copy(kept, folder)
            shutil.rmtree(kept)
            return kept
    updates = len(metadata.history)
    raise MapError(
        f"{folder} has {updates} update(s), and there is no earlier version beside it "
        f"({_version(folder, max(updates - 1, 0)).name})"
    )


def put(source: Path, folder: Path) -> None:
    """Move the files of a map to another folder, in place of the map that is there."""
    try:
        with atomic_folder(folder) as new:
            for file in source.iterdir():
                file.rename(new / file.name)
    except (DataError, OSError) as error:
        raise MapError(f"{folder} cannot be written ({error})") from None


def _sha256(folder: Path) -> str | None:
    return schema.read(folder)[1] if (folder / schema.FILE_NAME).is_file() else None


def _version(folder: Path, number: int) -> Path:
    folder = folder.expanduser().absolute()
    return folder.with_name(f"{folder.name}.v{number}")


def _copy(source: Path, folder: Path) -> None:
    """Make a folder of the same files, which both share where the file system can."""
    metadata, _ = schema.read(source)
    try:
        with atomic_folder(folder) as new:
            for name in (schema.FILE_NAME, *metadata.files):
                try:
                    os.link(source / name, new / name)
                except OSError:
                    shutil.copy2(source / name, new / name)
    except (DataError, OSError) as error:
        raise MapError(f"{folder} cannot be written ({error})") from None
