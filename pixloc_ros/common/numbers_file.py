"""Read numbers from pickles, alone or in .npz files, without running code that they may contain.

Only numbers, strings, lists and arrays are created; objects of other classes become empty objects.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import DataError

_SAFE = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "defaultdict"),
    ("collections", "OrderedDict"),
    ("builtins", "list"),
    ("builtins", "set"),
    ("builtins", "dict"),
}


class _Unknown:
    """Stands for an object whose class is not loaded."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Numbers(pickle._Unpickler):  # in Python: the one in C takes gigabytes for a large index
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAFE:
            return super().find_class(module, name)
        return _Unknown


def load_numbers(content: bytes) -> Any:
    """Return the numbers, strings, lists and arrays in a pickle.

    A damaged one may raise anything.
    """
    return _Numbers(io.BytesIO(content)).load()


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return arrays by name, also object arrays. Raises DataError for an unreadable file."""
    remedy = "is it a file of numpy's savez?"
    with refusing(DataError, path, remedy), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in names}


def _array(content: bytes) -> NDArray[Any]:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    _, _, dtype = read[version[0]](file)
    if dtype.hasobject:
        return np.asarray(load_numbers(content[file.tell() :]), object)
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
