"""Bags, runs, checkpoints and single files: whatever stops their writer, what is there is whole.

Maps are in test_writers.py.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.drives import read_drive, write_drive
from helpers.faults import READ_ONLY, files_of_at_most, killed_at
from helpers.invented import estimates, records
from pixloc_ros.cli.main import build
from pixloc_ros.common.atomic_write import check_writable, write_text
from pixloc_ros.common.image_files import write as write_image
from pixloc_ros.errors import BagError, DataError, PixlocError
from pixloc_ros.evaluation.frames import read_frames
from pixloc_ros.evaluation.report import write_run
from pixloc_ros.evaluation.sources import load_provenance
from pixloc_ros.geometry.trajectory import Trajectory, read_tum
from pixloc_ros.maps.files.posed_images import PosedImages
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import create_bag, truth_path
from pixloc_ros.training import checkpoint
from pixloc_ros.training.config import TrainConfig

FRAMES = 4


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> PosedImages:
    return read_drive(write_drive(tmp_path_factory.mktemp("drive"), FRAMES))


# --- writers, and how to see that what they left is whole -----------------------------------------


@dataclass(frozen=True)
class Writer:
    """What writes `old` first and `new` then under one name, and what tells which is there."""

    name: str
    write: Callable[[Path, str], None]
    read: Callable[[Path], str]  # "old" or "new", or "" where nothing is there
    leaves: frozenset[str]  # names in the folder when all is done


def read_text(path: Path) -> str:
    return path.read_text()


def paint(path: Path, text: str) -> None:
    write_image(path, np.full((8, 8, 3), len(text) * 40 if text == "old" else 0, np.uint8))


def painted(path: Path) -> str:
    import cv2

    return "old" if cv2.imread(str(path)).any() else "new"


TRAINING = TrainConfig.model_validate({"data": [{"kind": "photos", "path": "photos"}]})


def save_checkpoint(path: Path, text: str) -> None:
    network = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(network.parameters())
    progress = checkpoint.TrainingProgress(steps=1 if text == "old" else 2)
    checkpoint.write(path, TRAINING, progress, {"network": network}, adam)


def read_checkpoint(path: Path) -> str:
    network = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(network.parameters())
    progress = checkpoint.read(path, TRAINING, 1, {"network": network}, adam)
    return ["", "old", "new"][progress.steps]


def truth() -> Trajectory:
    stamps = np.arange(FRAMES) * 100_000_000
    return Trajectory(stamps, np.tile(np.eye(4), (FRAMES, 1, 1)))


def save_run(folder: Path, text: str) -> None:
    some = estimates(truth())[: 2 if text == "old" else 3]
    write_run(folder, some, records(some), {"map_sha256": text, "weights_sha256": text})


def read_run(folder: Path) -> str:
    """What the summary says it is of must be beside it."""
    if not (folder / "summary.json").exists():
        return ""
    text = load_provenance(folder)["map_sha256"]
    assert len(read_frames(folder)) == (2 if text == "old" else 3)
    return text


WRITERS = [
    Writer("text", write_text, read_text, frozenset({"it.txt"})),
    Writer("image", paint, painted, frozenset({"it.png"})),
    Writer("checkpoint", save_checkpoint, read_checkpoint, frozenset({"it.safetensors"})),
    Writer("run", save_run, read_run, frozenset({"it"})),
]


def place_of(writer: Writer, folder: Path) -> Path:
    return folder / next(iter(writer.leaves))


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_killed_at_any_step_the_old_one_is_there_or_the_new_one(writer, tmp_path):
    path, seen = place_of(writer, tmp_path), set()
    for step in count(1):
        writer.write(path, "old")
        killed = killed_at(step, lambda p: writer.write(p, "new"), path)
        seen.add(writer.read(path))
        assert not killed_at(0, lambda p: writer.write(p, "new"), path)
        assert writer.read(path) == "new"
        names = {p.name for p in tmp_path.rglob("*") if p.name.startswith(".")}
        assert not names, f"left behind after the next start, by step {step}"
        assert {p.name for p in tmp_path.iterdir()} == writer.leaves
        if not killed:
            break
    assert step > 3 and seen >= {"old", "new"} and seen <= {"old", "new", ""}


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_full_disk_is_one_line_and_the_old_one_stays(writer, tmp_path):
    path = place_of(writer, tmp_path)
    writer.write(path, "old")
    with files_of_at_most(0), pytest.raises(DataError, match="cannot write") as caught:
        writer.write(path, "new")
    assert "File too large" in str(caught.value)
    assert writer.read(path) in ("old", "")  # a run's files are no longer of one run
    assert {p.name for p in tmp_path.iterdir()} == writer.leaves


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_folder_that_is_read_only_is_one_line(writer):
    with pytest.raises(DataError, match=f"cannot write {READ_ONLY}") as caught:
        writer.write(place_of(writer, READ_ONLY), "new")
    assert "\n" not in str(caught.value)


# --- bags -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("storage", "every"), [("mcap", 4), ("sqlite3", 6)])
def test_a_bag_is_there_with_its_truth_or_not_at_all(storage, every, drive, tmp_path):
    options = BagOptions(gnss="none", storage=storage)

    def record(bag: Path) -> None:
        create_bag(drive, bag, options)

    def record_again(bag: Path) -> None:
        """As a person does, who is told that it exists already."""
        with suppress(BagError):
            record(bag)

    bag = tmp_path / "bag"
    for step in count(1, every):
        killed = killed_at(step, record, bag)
        if bag.exists():
            assert len(read_tum(truth_path(bag))) == FRAMES
        record_again(bag)
        with BagReader(bag) as reader:
            assert reader.image_count == FRAMES
        assert {p.name for p in tmp_path.iterdir()} == {"bag", "bag.truth.txt"}, step
        shutil.rmtree(bag)
        truth_path(bag).unlink()
        if not killed:
            break
    assert step > 10


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_on_a_full_disk_is_one_line(storage, drive, tmp_path):
    options = BagOptions(gnss="none", storage=storage)
    with files_of_at_most(20_000), pytest.raises(PixlocError, match="cannot write") as caught:
        create_bag(drive, tmp_path / "bag", options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- what lies in the way -------------------------------------------------------------------------


def part_of(path: Path, process: int) -> Path:
    return path.with_name(f".{path.stem}.{process}.part{path.suffix}")


def test_a_part_that_a_living_process_writes_is_left_alone(tmp_path):
    """Also one of another container, whose number means nothing here."""
    part = part_of(tmp_path / "a.txt", 999_999_999)
    with part.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not killed_at(0, lambda path: write_text(path, "new"), tmp_path / "a.txt")
        assert part.exists()
    assert not killed_at(0, lambda path: write_text(path, "new"), tmp_path / "a.txt")
    assert not part.exists()


def test_links_in_the_way_of_a_part_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    part_of(tmp_path / "a.txt", os.getpid()).symlink_to(victim)
    part_of(tmp_path / "a.txt", 999_999_999).symlink_to(victim)
    write_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "precious" and (tmp_path / "a.txt").read_text() == "new"


def test_files_that_only_look_like_parts_stay(tmp_path):
    names = [".hidden", "a.12.part.txt", ".a.part.txt", ".a.12.part"[:5]]
    for name in names:
        (tmp_path / name).write_text("mine")
    write_text(tmp_path / "a.txt", "new")
    assert {p.name for p in tmp_path.iterdir()} == {*names, "a.txt"}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_decides_who_may_read_a_file(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


# --- told before the work, not after it -----------------------------------------------------------


def test_a_file_that_could_not_be_written_is_told_before_the_work(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    check_writable(tmp_path / "a.txt")
    check_writable(tmp_path / "new" / "folder" / "b.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
    for path in (tmp_path, tmp_path / "a.txt" / "b.txt", READ_ONLY / "a.txt"):
        with pytest.raises(DataError, match="cannot write"):
            check_writable(path)
    with files_of_at_most(500), pytest.raises(DataError, match="File too large"):
        check_writable(tmp_path / "a.txt")


LONG_COMMANDS = {
    "replay": "replay no_bag --map no_map --output {}",
    "localize": "localize --map no_map --images . --queries no.txt --output {}",
    "map cloud": "map cloud --scans . --poses no.txt --output {}.ply",
    "collect": "verification collect --map no --images . --meta no --output {} --place a",
    "benchmark": "benchmark --size 64x64 --json {}",
}


@pytest.mark.parametrize("command", LONG_COMMANDS.values(), ids=LONG_COMMANDS.keys())
def test_long_commands_look_at_their_output_first(command):
    """Nothing that they read is there, and yet it is the output that they complain of."""
    arguments = command.format(READ_ONLY / "out").split()
    done = CliRunner().invoke(build(), arguments)
    assert isinstance(done.exception, DataError)
    assert f"cannot write {READ_ONLY / 'out'}" in str(done.exception)


@pytest.mark.parametrize("write", [write_text, paint, save_checkpoint])
def test_devices_and_pipes_are_never_replaced(write, tmp_path):
    pipe, link = tmp_path / "pipe.png", tmp_path / "null.png"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        with pytest.raises(DataError, match="a device or a pipe; name a file"):
            check_writable(path)
        with pytest.raises(DataError, match="a device or a pipe; name a file"):
            write(path, "new")
    assert pipe.is_fifo() and link.is_char_device()
    assert {p.name for p in tmp_path.iterdir()} == {"pipe.png", "null.png"}


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path):
    (tmp_path / "a.txt" / "b").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot write .*a\.txt: it is a folder; name a file"):
        write_text(tmp_path / "a.txt", "new")
