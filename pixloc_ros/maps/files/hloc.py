"""The text and HDF5 files of hloc, which PixLoc and the public benchmarks share.

In lists empty lines and lines that begin with # say nothing. Names are relative to image folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import foreign_files
from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.geometry.camera import COLMAP_MODELS, Camera

QUERY_COLUMNS = "name MODEL width height params..."
DESCRIPTOR = "global_descriptor"

Descriptors = dict[str, NDArray[np.float32]]


def read_lines(path: Path, what: str) -> Iterator[tuple[str, str]]:
    """Give `file:line` and text of each line; raises DataError for a file that cannot be read.

    what: plural noun for the message, as `queries`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(f"cannot read {what} from {path}: {reason}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}:{number}", line.strip()


def read_names(path: Path, what: str = "image names") -> list[str]:
    """Read one name per line; raises DataError where there is none or one comes twice."""
    names: dict[str, None] = {}
    for where, line in read_lines(path, what):
        if line in names:
            raise DataError(f"{where}: image {line} is listed twice")
        names[line] = None
    if not names:
        raise DataError(f"{path} holds no {what}")
    return list(names)


def read_cameras(path: Path) -> dict[str, Camera]:
    """Read cameras by image name of lines `name MODEL width height params...`.

    path may be a pattern, as `*_queries.txt`: the files that match are read in order. Raises
    DataError with the wrong line.
    """
    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not files:
        raise DataError(f"no file {path}; expected lines `{QUERY_COLUMNS}`")
    cameras: dict[str, Camera] = {}
    for where, line in (row for file in files for row in read_lines(file, "queries")):
        name, camera = _camera(line.split(), where)
        if name in cameras:
            raise DataError(f"{where}: image {name} is listed twice")
        cameras[name] = camera
    if not cameras:
        raise DataError(f"{path}: holds no queries; expected lines `{QUERY_COLUMNS}`")
    return cameras


def read_pairs(path: Path) -> dict[str, list[str]]:
    """Read reference names by query name, the best first, of lines `query reference`."""
    pairs: dict[str, list[str]] = {}
    for where, line in read_lines(path, "pairs"):
        words = line.split()
        if len(words) != 2:
            raise DataError(f"{where}: expected `query reference`, names without spaces")
        pairs.setdefault(words[0], []).append(words[1])
    return pairs


def read_descriptors(files: Sequence[Path], names: Sequence[str]) -> NDArray[np.float32]:
    """Read global descriptors (N, D) of unit norm; each name from the first file that has it.

    Raises DataError for files that cannot be read and for names without a descriptor.
    """
    found: Descriptors = {}
    for path in files:
        found = {**_descriptors_of(path, names), **found}
    if missing := [name for name in names if name not in found]:
        listed = ", ".join(str(path) for path in files)
        raise DataError(
            f"{listed}: {len(missing)} images lack a {DESCRIPTOR}, first '{missing[0]}'"
        )
    sizes = sorted({len(vector) for vector in found.values()})
    if len(sizes) > 1:
        raise DataError(f"descriptors of several sizes, {sizes}: give those of one model")
    rows = np.stack([found[name] for name in names])
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _descriptors_of(path: Path, names: Iterable[str]) -> Descriptors:
    h5py = import_h5py()
    with foreign_files.refusing(DataError, path), h5py.File(path) as file:
        return {
            name: np.asarray(file[name][DESCRIPTOR], np.float32).ravel()
            for name in names
            if f"{name}/{DESCRIPTOR}" in file
        }


def import_h5py() -> ModuleType:
    """Import the HDF5 library; raises DataError with the command that installs it."""
    try:
        import h5py
    except ImportError:
        raise DataError("reading HDF5 needs h5py: pip install 'pixloc_ros[hloc]'") from None
    return h5py


def check_same_names(
    path: Path, known: Mapping[str, object], names: Sequence[str], what: str
) -> None:
    """Raise DataError unless a file knows at least one of the queries."""
    if not any(name in known for name in names):
        theirs = next(iter(known), "nothing")
        raise DataError(
            f"no query has a {what}: queries are named like '{names[0]}', {path} has '{theirs}'"
        )


def _camera(words: list[str], where: str) -> tuple[str, Camera]:
    at = next((i for i, word in enumerate(words) if i > 0 and word in COLMAP_MODELS), None)
    if at is None:
        models = ", ".join(COLMAP_MODELS)
        raise DataError(f"{where}: expected `{QUERY_COLUMNS}` with a MODEL of {models}")
    try:
        width, height, *params = (float(word) for word in words[at + 1 :])
        camera = Camera.from_colmap(words[at], round(width), round(height), params)
    except (ValueError, OverflowError, CameraError) as error:
        raise DataError(f"{where}: {error}") from None
    return " ".join(words[:at]), camera
