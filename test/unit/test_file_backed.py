"""Arrays that are kept in files."""

import gc
from pathlib import Path

import numpy as np
import psutil
import pytest

from pixloc_ros.common.file_backed import CHUNK_BYTES, FileBackedArrays
from pixloc_ros.errors import DataError


def mapped_files(folder: Path) -> list[str]:
    """The files of a folder that this process has mapped into its memory."""
    maps = psutil.Process().memory_maps(grouped=False)
    return [each.path for each in maps if each.path.startswith(str(folder))]


def test_arrays_are_kept_as_they_are_and_in_files(tmp_path: Path) -> None:
    arrays = FileBackedArrays(tmp_path)
    rng = np.random.default_rng(0)
    given = [
        rng.normal(size=(101, 3)),
        rng.normal(size=77).astype(np.float32),
        np.empty((0, 2), np.float32),
        rng.integers(0, 255, CHUNK_BYTES + 1).astype(np.uint8),
        rng.normal(size=(3, 5, 7)),
    ]
    kept = [arrays.keep(array) for array in given]
    for before, after in zip(given, kept, strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    assert len(mapped_files(tmp_path)) == 3
    assert not list(tmp_path.iterdir())  # without names: a killed process leaves nothing
    given[0][:] = 0
    assert (kept[0] != 0).all()
    del arrays, kept, after
    gc.collect()
    assert not mapped_files(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*gone"):
        FileBackedArrays(tmp_path / "gone").keep(np.ones(3))
