"""Builds that are interrupted, shared by workers, run twice at once, or short of disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from helpers.faults import children, cmdline, files_of_at_most, kill_one_after
from helpers.map_building import COUNT, build, make_model
from helpers.scene import write_scene
from pixloc_ros.common.parallel import LostWorker, Workers
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.build.work_folder import work_folder
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.integrity import find_problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> ColmapModel:
    return make_model(folder)


# Builds the map that `build` below builds, in a process that waits after the third image.
BUILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from helpers.map_building import build, make_model
def progress(items, description, total):
    for i, item in enumerate(items):
        yield item
        while i == 2:
            time.sleep(1.0)
folder, output = map(Path, sys.argv[2:])
build(make_model(folder), folder, output, progress=progress)
"""


class CountingExtractor(FeatureExtractor):
    """Knows how many images it has seen."""

    seen = 0

    def extract(self, image_rgb):
        self.seen += 1
        return super().extract(image_rgb)


@pytest.fixture(scope="module")
def whole(model, folder, tmp_path_factory) -> str:
    """SHA-256 of the map that an uninterrupted build gives."""
    return build(model, folder, tmp_path_factory.mktemp("maps") / "map").sha256


def parts_of(output: Path) -> list[Path]:
    return sorted(output.with_name(f".{output.name}.work").glob("*.safetensors"))


def hidden_beside(output: Path) -> list[str]:
    return [path.name for path in output.parent.iterdir() if path.name.startswith(".")]


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_build_goes_on_where_it_was(model, folder, whole, tmp_path):
    output = tmp_path / "map"
    command = [sys.executable, "-c", BUILD, *map(str, (Path(__file__).parents[1], folder, output))]
    process = subprocess.Popen(command)
    while process.poll() is None and len(parts_of(output)) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(parts_of(output))
    assert done == 3 and not output.exists()
    extractor = CountingExtractor()
    assert build(model, folder, output, extractor).sha256 == whole
    assert extractor.seen == COUNT - done
    assert find_problems(output) == [] and hidden_beside(output) == []


@pytest.mark.slow
def test_image_that_changed_is_observed_again(model, folder, whole, tmp_path):
    images = shutil.copytree(folder / "images", tmp_path / "images")
    broken = images / "drive 1" / "008.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    with pytest.raises(MapError, match=r"008\.png is cut off"):
        build(model, tmp_path, tmp_path / "map")
    assert len(parts_of(tmp_path / "map")) == 8
    broken.write_bytes(content)
    extractor = CountingExtractor()
    assert build(model, tmp_path, tmp_path / "map", extractor).sha256 == whole
    assert extractor.seen == 4


def test_part_of_another_network_is_not_taken(model, folder, tmp_path):
    small = replace(model, images=model.images[:3])
    at_full_size, reduced = FeatureExtractor(), FeatureExtractor(max_side_px=200)
    keys = set()
    for extractor in (at_full_size, reduced):
        with pytest.raises(ZeroDivisionError):
            build(small, folder, tmp_path / "map", extractor, stop_after(2), min_track_length=1)
        keys.add(len(parts_of(tmp_path / "map")))
    assert keys == {2, 4}


def stop_after(count: int):
    def progress(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        for i, item in enumerate(items):
            yield item
            if i + 1 == count:
                raise ZeroDivisionError

    return progress


# --- at once -------------------------------------------------------------------------------------


def test_second_build_of_a_map_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    output = tmp_path / "map"
    ours, theirs = get_context("fork").Pipe()
    other = get_context("fork").Process(target=hold, args=(output, theirs), daemon=True)
    other.start()
    assert ours.recv()
    message = f"another build, process {other.pid}, writes"
    with pytest.raises(MapError, match=message) as caught, work_folder(output):
        pass
    assert "\n" not in str(caught.value)
    other.kill()
    other.join()
    with work_folder(output) as folder:
        assert (folder / "lock").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def hold(output: Path, pipe: Connection) -> None:
    """Write a map, and never end."""
    with work_folder(output):
        pipe.send(True)
        pipe.recv()


# --- short of disk -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("part_sizes", "done"), [(0.5, 0), (3.0, COUNT)])
def test_full_disk_leaves_no_half_map_and_what_is_done_is_kept(
    model, folder, whole, tmp_path, part_sizes, done
):
    """Full with the first part, and full with the map itself."""
    part_bytes = part_size(model, folder, tmp_path)
    output = tmp_path / "map"
    with files_of_at_most(int(part_sizes * part_bytes)), pytest.raises(MapError) as caught:
        build(model, folder, output)
    assert "cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert not output.exists() and len(parts_of(output)) == done
    extractor = CountingExtractor()
    assert build(model, folder, output, extractor).sha256 == whole
    assert extractor.seen == COUNT - done and hidden_beside(output) == []


def part_size(model: ColmapModel, folder: Path, tmp_path: Path) -> int:
    with pytest.raises(ZeroDivisionError):
        build(model, folder, tmp_path / "try", progress=stop_after(2))
    size = max(part.stat().st_size for part in parts_of(tmp_path / "try"))
    shutil.rmtree(tmp_path / ".try.work")
    return size


# --- many hands ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_same_map_and_one_that_is_killed_is_told(model, folder, whole, tmp_path):
    output, workers = tmp_path / "map", Workers(2)
    kill = kill_one_after(3, lambda: [p for p in children() if "spawn_main" in cmdline(p)])
    with pytest.raises(LostWorker, match=r"worker process was killed.*start again"):
        build(model, folder, output, progress=kill, workers=workers)
    assert 3 <= len(parts_of(output)) < COUNT
    assert build(model, folder, output).sha256 == whole


def test_ray_that_is_not_there_is_named(model, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "pixloc_ros\[ray\]"'):
        build(model, folder, tmp_path / "map", workers=Workers(ray_address="auto"))
