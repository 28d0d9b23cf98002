"""Arrays in a file instead of in memory: much that is kept, of which little is read again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import write_errors

CHUNK_BYTES = 2**24  # of one file
PLACE_BYTES = 8  # arrays begin at multiples of it, as their numbers have to

Number = TypeVar("Number", bound=np.generic)


class FileBackedArrays:
    """Moves arrays to files without a name in a folder; they exist as long as the arrays do.

    Memory that the system caches of them is free for others. Raises DataError if the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chunk: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0

    def keep(self, array: NDArray[Number]) -> NDArray[Number]:
        """Return an equal array that is in a file."""
        if not array.size:
            return array
        if self._used + array.nbytes > len(self._chunk):
            self._chunk, self._used = self._new_chunk(array.nbytes), 0
        place = self._chunk[self._used : self._used + array.nbytes]
        self._used += -(-array.nbytes // PLACE_BYTES) * PLACE_BYTES
        kept = place.view(array.dtype).reshape(array.shape)
        kept[...] = array
        return kept

    def _new_chunk(self, least_bytes: int) -> NDArray[np.uint8]:
        size = max(CHUNK_BYTES, least_bytes)
        with write_errors(self._folder), tempfile.TemporaryFile(dir=self._folder) as file:
            file.write(bytes(size))  # now: a disk that is full later would kill the process
            file.flush()
            return np.memmap(file, np.uint8, "r+", shape=(size,))
