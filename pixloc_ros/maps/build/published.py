"""Maps as servers have them: written for a URL, and taken along whole from one."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

from pixloc_ros.common.atomic_write import atomic_folder, atomic_path
from pixloc_ros.common.foreign_files import own_file
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import TilesConfig
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.remote import BY_HASH, RemoteSource, open_source
from pixloc_ros.maps.source import FolderSource


def publish(folder: Path, output: Path, progress: Progress = silent) -> None:
    """Copy a map's files under their hashes, then its map.json in place of an earlier one.

    Raises MapError where a file is not as it was built, or cannot be written.
    """
    source = FolderSource(folder.expanduser())
    try:
        (output / BY_HASH).mkdir(parents=True, exist_ok=True)
        files = source.metadata.files
        for name, sha256 in progress(files.items(), "copy", len(files)):
            published = output / BY_HASH / sha256
            if not published.exists():
                with atomic_path(published) as part:
                    shutil.copyfile(own_file(source.folder, name, MapError), part)
                    with part.open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    schema.check_hash(source.metadata, name, digest, source.path(name))
        with atomic_path(output / schema.FILE_NAME) as part:
            shutil.copyfile(source.folder / schema.FILE_NAME, part)
    except (DataError, OSError) as error:
        raise MapError(f"{output} cannot be written ({error})") from None


def fetch(url: str, output: Path, overwrite: bool = False, progress: Progress = silent) -> None:
    """Write a map behind a URL to a folder, whole or not at all.

    Raises MapError where a file cannot be had, or is not as it was built.
    """
    output = writer.check_output(output, overwrite)
    source = open_source(url, TilesConfig())
    if not isinstance(source, RemoteSource):
        raise MapError(f"{url} is a folder, not a URL; copy it")
    names = source.metadata.files
    try:
        with atomic_folder(output) as new:
            for name in progress(names, "fetch", len(names)):
                source.retries.run(partial(_download, source, name, new / name))
            (new / schema.FILE_NAME).write_text(source.text, encoding="utf-8")
    except (DataError, OSError) as error:
        raise MapError(f"{output} cannot be written ({error})") from None


def _download(source: RemoteSource, name: str, path: Path) -> None:
    with path.open("wb") as file:
        source.download(name, file)
