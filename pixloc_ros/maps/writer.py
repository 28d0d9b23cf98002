"""Writing a map folder: beside the output first, then moved there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import from_numpy

from pixloc_ros.errors import MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.schema import MapMetadata, TileEntry

KEYFRAMES_FILE = "keyframes.safetensors"
TILE_FILE = "tile_{id}.safetensors"


def check_output(output: str | Path, overwrite: bool) -> Path:
    """The output's path; raises MapError unless a map may be written there.

    Only maps are ever overwritten: an output that is another folder is always refused.
    """
    path = Path(output).expanduser().absolute()
    if not path.parent.is_dir():
        raise MapError(f"{path}: there is no folder {path.parent}; create it first")
    if path.exists() and not (path / schema.FILE_NAME).is_file():
        raise MapError(f"{path} exists and is not a map; choose another output")
    if path.exists() and not overwrite:
        raise MapError(f"{path} exists; choose another output, or pass --overwrite")
    return path


def save(
    keyframe_arrays: Mapping[str, NDArray],
    point_arrays: Mapping[str, NDArray],
    metadata: Mapping[str, Any],
    origin: NDArray[np.float64],
    output: str | Path,
    overwrite: bool = False,
) -> str:
    """Write a map of one tile; returns its SHA-256.

    metadata: the fields of MapMetadata that are not counted here. origin: (3,), of `points`.
    Raises MapError when the output exists and may not be overwritten, or cannot be written.
    """
    path = check_output(output, overwrite)
    with _replacing(path) as folder:
        tile = TileEntry(
            id="0",
            file=TILE_FILE.format(id="0"),
            origin=tuple(origin.tolist()),
            points=len(point_arrays["points"]),
            rows=len(point_arrays["row_point"]),
        )
        files = {
            KEYFRAMES_FILE: _write(keyframe_arrays, folder / KEYFRAMES_FILE),
            tile.file: _write(point_arrays, folder / tile.file),
        }
        complete = MapMetadata(
            **metadata,
            keyframes=len(keyframe_arrays["keyframe_T_map_cam"]),
            keyframes_file=KEYFRAMES_FILE,
            observations=len(keyframe_arrays["observation_point"]),
            tiles=(tile,),
            files=files,
        )
        return schema.write(complete, folder)


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """A temporary folder beside the output that takes its place when all went well."""
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        temporary.chmod(0o755)  # mkdtemp's own mode would hide the map from other users
        yield temporary
        _move(temporary, output)
    except (OSError, SafetensorError) as error:  # which is what a full disk is to save_file
        why = getattr(error, "strerror", None) or error
        raise MapError(f"{output} cannot be written ({why})") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, output: Path) -> None:
    if not output.exists():
        os.rename(temporary, output)
        return
    old = temporary.with_suffix(".old")
    os.rename(output, old)
    try:
        os.rename(temporary, output)
    except OSError:
        os.rename(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(arrays: Mapping[str, NDArray], path: Path) -> str:
    save_file({name: from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, path)
    return schema.file_sha256(path)
