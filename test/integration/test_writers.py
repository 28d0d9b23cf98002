"""Whatever stops a writer of maps, at whatever step: the old map is there, or the new one."""

from __future__ import annotations

import os
import shutil
import stat
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from helpers.faults import files_of_at_most, killed_at
from pixloc_ros.common.atomic_write import atomic_folder
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.build import edit, writer
from pixloc_ros.maps.build.work_folder import work_folder
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge.merger import merge
from pixloc_ros.maps.schema import Calibration
from research.invented_map import InventedMap, write_invented_map

EVERYWHERE = (-1e5, -1e5), (1e5, 1e5)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A small map of several tiles."""
    folder = tmp_path_factory.mktemp("maps") / "map"
    write_invented_map(InventedMap(2000, dims=(4, 4, 4), descriptor=8, tile_m=10.0), folder)
    assert len(Map.load(folder).tiles) > 1
    return folder


@pytest.fixture
def town(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "town")


def write_anew(folder: Path) -> None:
    """Replace a map by one of fewer tiles."""
    stored = edit.StoredMap(tile_m=50.0)
    edit.crop(Map.load(folder), *EVERYWHERE, folder, overwrite=True, stored=stored)


def calibrate(folder: Path) -> None:
    """Give a map another calibration."""
    found = Calibration(scale=2.0, floor_m=(1.0, 1.0, 1.0), floor_deg=(1.0, 1.0, 1.0), frames=40)
    metadata, _ = schema.read(folder)
    schema.write(metadata.model_copy(update={"calibration": found}), folder)


def merge_twice(folder: Path) -> None:
    """Replace a map by one that has all of it twice."""
    map_ = Map.load(folder)
    merge([("a", map_), ("b", map_)], folder, overwrite=True)


WRITERS = [write_anew, merge_twice, calibrate]


@pytest.mark.slow
@pytest.mark.parametrize("work", WRITERS)
def test_a_writer_killed_at_any_step_leaves_the_old_map_or_the_new_one(work, original, town):
    old = Map.load(original).sha256
    seen = {old}
    for step in count(1):
        shutil.rmtree(town)
        shutil.copytree(original, town)
        killed = killed_at(step, work, town)
        left = Map.load(town)
        left.whole()
        seen.add(left.sha256)
        assert not killed_at(0, work, town)
        names = {path.name for path in town.parent.iterdir()}
        assert names == {"town"}, f"left behind after the next start, by step {step}"
        assert not list(town.glob(".*"))
        if not killed:
            break
    assert step > 3 and len(seen) == 2


@pytest.mark.parametrize("work", WRITERS)
def test_a_full_disk_is_one_line_and_the_old_map_stays(work, original, town):
    with (
        files_of_at_most(500),
        pytest.raises(MapError, match=r"cannot (be written|write)") as caught,
    ):
        work(town)
    assert "\n" not in str(caught.value)
    assert Map.load(town).sha256 == Map.load(original).sha256
    assert {path.name for path in town.parent.iterdir()} == {"town"}
    assert {p.name for p in town.iterdir()} == {p.name for p in original.iterdir()}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_the_umask_decides_who_may_read_a_map(umask, town):
    before = os.umask(umask)
    try:
        write_anew(town)
    finally:
        os.umask(before)
    assert stat.S_IMODE(town.stat().st_mode) == 0o777 & ~umask
    for path in town.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path.name


def test_a_map_that_was_put_aside_is_back_before_any_work(town):
    """Where folders cannot be exchanged, a kill between two renames leaves no map."""
    old = town.with_name(".town.old")
    town.rename(old)
    with pytest.raises(MapError, match="exists; choose another output"):
        writer.check_output(town, overwrite=False)
    assert (town / "map.json").is_file() and not old.exists()
    shutil.copytree(town, old)
    writer.check_output(town, overwrite=True)
    assert not old.exists()


def test_two_writers_of_one_folder_do_not_mix(tmp_path):
    with atomic_folder(tmp_path / "town") as folder:
        (folder / "file").write_text("first")
        with (
            pytest.raises(DataError, match="another process writes to"),
            atomic_folder(tmp_path / "town"),
        ):
            pass
    assert (tmp_path / "town" / "file").read_text() == "first"


@pytest.mark.parametrize("name", [".town.new", ".town.work", ".town.work/lock"])
def test_links_are_not_followed(name, town, tmp_path):
    """Whoever may write beside a map could have another file written, or cleared."""
    victim = tmp_path / "victim"
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    if name.endswith("lock"):
        victim.write_text("precious")
    else:
        victim.mkdir()
        (victim / "file").write_text("precious")
    link.symlink_to(victim)
    work = write_anew if name == ".town.new" else begin
    with pytest.raises(MapError):
        work(town)
    content = victim if victim.is_file() else victim / "file"
    assert content.read_text() == "precious"


def begin(output: Path) -> None:
    """Begin to build a map, and be interrupted."""
    with work_folder(output) as folder:
        np.savez(folder / "part.npz", np.zeros(3))
        raise KeyboardInterrupt


def test_what_an_interrupted_build_keeps_is_told(tmp_path):
    with pytest.raises(KeyboardInterrupt) as interrupted:
        begin(tmp_path / "town")
    assert "the same command goes on there" in interrupted.value.__notes__[0]
