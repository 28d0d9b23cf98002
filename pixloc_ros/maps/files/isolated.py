"""Files whose libraries crash where a file is damaged are read in a process of their own.

What C++ and Rust do with a stranger's file (a fault of memory, an abort, an endless loop) cannot be
caught as an exception; here it costs a process that does nothing else.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Reader = Callable[[Path], tuple[NDArray, ...]]

SPARE_BYTES = 1_500_000_000  # of memory, for the interpreter, its libraries and their threads
SPARE_SPACE = 6_000_000_000  # of addresses, where the kernel does not count the memory itself
BYTES_PER_BYTE = 100  # of arrays in memory, for each of the file
SPARE_S = 10  # of the processor; importing open3d takes one
BYTES_PER_S = 100_000
# What open3d imports to draw in a browser: it takes twice as long as open3d itself.
NOT_NEEDED = ("dash", "plotly", "plotly.graph_objects")


class NothingInside(ModuleType):
    """Stands for a module that is imported and not used."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def read(reader: Reader, path: Path) -> tuple[NDArray, ...]:
    """The arrays that a function of a module makes of a file.

    Raises ValueError with what it raised, and where it crashed, hung, or took far more memory than
    the file is worth.
    """
    with tempfile.TemporaryDirectory(prefix="pixloc_") as folder:
        result = Path(folder) / "arrays.npz"
        names = [reader.__module__, reader.__name__, str(path.absolute()), str(result)]
        done = subprocess.run(
            [sys.executable, "-m", __name__, *names], capture_output=True, check=False
        )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
            why = lines[-1] if done.returncode == 1 else f"its reader ended with {done.returncode}"
            raise ValueError(why)
        with np.load(result, allow_pickle=False) as arrays:
            return tuple(arrays[f"arr_{index}"] for index in range(len(arrays.files)))


def main() -> None:
    """Read one file, within time and memory that its size is worth."""
    module, name, path, result = sys.argv[1:]
    size = Path(path).stat().st_size
    limits = {
        resource.RLIMIT_DATA: SPARE_BYTES + BYTES_PER_BYTE * size,
        resource.RLIMIT_AS: SPARE_SPACE + BYTES_PER_BYTE * size,
        resource.RLIMIT_CPU: SPARE_S + size // BYTES_PER_S,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    sys.modules |= {unused: NothingInside(unused) for unused in NOT_NEEDED}
    np.savez(result, *getattr(import_module(module), name)(Path(path)))


if __name__ == "__main__":
    main()
