"""Runs that are stopped: what is done is on disk, and nobody takes it for the whole."""

import os
import signal
from pathlib import Path

import pytest

from helpers import invented
from helpers.faults import files_of_at_most
from pixloc_ros.errors import BagError, DataError
from pixloc_ros.evaluation.frames import FrameResult, frame_result, read_frames, write_frames
from pixloc_ros.evaluation.metrics import evaluate
from pixloc_ros.evaluation.partial_run import PartialRun, ResumableRun
from pixloc_ros.evaluation.report import write_run
from pixloc_ros.evaluation.sources import load_frames, load_provenance
from pixloc_ros.evaluation.tables import summary_rows
from pixloc_ros.geometry.trajectory import read_tum

DIGESTS = {"map_sha256": "m", "weights_sha256": "w"}


@pytest.fixture(scope="module")
def frames() -> list[FrameResult]:
    truth = invented.drive(12)
    return [frame_result(estimate, truth) for estimate in invented.estimates(truth)]


def stop(output: Path, frames: list[FrameResult], error: BaseException) -> BaseException:
    try:
        with PartialRun(output, 12, DIGESTS) as partial:
            for frame in frames:
                partial.add(frame)
            raise error
    except type(error) as stopped:
        return stopped


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_stopped_run_leaves_its_frames_and_says_how_far_it_got(frames, tmp_path):
    write_run(tmp_path, invented.estimates(invented.drive(12)), frames, DIGESTS)
    whole = content(tmp_path)
    error = stop(tmp_path, frames[:5], KeyboardInterrupt())
    assert error.__notes__ == [f"5 of 12 frames are kept in {tmp_path / 'partial'}"]
    assert content(tmp_path) == whole
    assert read_frames(tmp_path / "partial") == frames[:5]
    assert len(read_tum(tmp_path / "partial" / "trajectory.txt")) == 5
    provenance = load_provenance(tmp_path / "partial")
    assert provenance == DIGESTS | {"interrupted": "after 5 of 12 frames"}
    summary = evaluate(load_frames(tmp_path / "partial", None), provenance=provenance)
    assert summary_rows(summary)[0] == ("interrupted", "after 5 of 12 frames")
    assert load_provenance(tmp_path)["interrupted"] is None


def test_an_error_in_the_middle_is_in_the_summary(frames, tmp_path):
    stop(tmp_path, frames[:2], BagError("the bag has\na hole"))
    interrupted = load_provenance(tmp_path / "partial")["interrupted"]
    assert interrupted == "after 2 of 12 frames: the bag has a hole"


def test_a_run_without_a_frame_leaves_nothing(tmp_path):
    error = stop(tmp_path / "run", [], KeyboardInterrupt())
    assert not getattr(error, "__notes__", [])
    assert not (tmp_path / "run").exists()


def test_a_killed_run_leaves_all_frames_that_it_had(frames, tmp_path):
    child = os.fork()
    if child == 0:
        with PartialRun(tmp_path, 12) as partial:
            for frame in frames[:7]:
                partial.add(frame)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_frames(tmp_path / "partial") == frames[:7]
    assert len(read_tum(tmp_path / "partial" / "trajectory.txt")) == 7
    summary = evaluate(frames[:7], provenance=load_provenance(tmp_path / "partial"))
    assert summary_rows(summary)[0] == ("interrupted", "by a kill, or still running")
    stop(tmp_path, frames[:3], KeyboardInterrupt())  # the next run replaces it
    assert read_frames(tmp_path / "partial") == frames[:3]


def test_a_recording_that_was_cut_off_is_kept_by_the_next_one(frames, tmp_path):
    stop(tmp_path, frames[:3], KeyboardInterrupt())
    for end in (5, 6):
        with PartialRun(tmp_path, keep_older=True) as partial:
            for frame in frames[3:end]:
                partial.add(frame)
            partial.publish()
        assert read_frames(tmp_path / "partial-1") == frames[:3]
        assert read_frames(tmp_path) == frames[3:end]
    assert not (tmp_path / "partial").exists()
    assert not (tmp_path / "partial-2").exists()


def test_files_of_others_stay(frames, tmp_path):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "notes.txt").write_text("mine")
    with PartialRun(tmp_path) as partial:
        partial.add(frames[0])
        partial.publish()
    assert [path.name for path in (tmp_path / "partial").iterdir()] == ["notes.txt"]


def test_a_line_that_a_kill_has_cut_is_left_out(frames, tmp_path):
    path = tmp_path / "frames.jsonl"
    write_frames(path, frames[:3])
    lines = path.read_text()
    path.write_text(lines[:-1])
    assert read_frames(path) == frames[:3]
    for cut in (2, 40, 200):
        path.write_text(lines[:-cut])
        assert read_frames(path) == frames[:2]


def test_a_resumed_run_goes_on_after_its_last_whole_line(frames, tmp_path):
    path = tmp_path / "frames.jsonl"
    for frame in frames[:3]:
        ResumableRun(tmp_path, {"map": "m"}).add(frame)
    for cut in (1, 40):  # the end of the line, and a part of it
        path.write_text(path.read_text()[:-cut])
        resumed = ResumableRun(tmp_path, {"map": "m"})
        for frame in frames[len(resumed.done) : 5]:
            resumed.add(frame)
        assert read_frames(path) == frames[:5]


def test_records_that_cannot_be_read_are_named_with_the_remedy(frames, tmp_path):
    path = tmp_path / "frames.jsonl"
    write_frames(path, frames[:2])
    path.write_text(path.read_text().replace("stamp_ns", "stamp", 1))
    with pytest.raises(DataError, match=r"frames\.jsonl:1: stamp_ns") as caught:
        ResumableRun(tmp_path, {})
    assert caught.value.__notes__ == [f"remove {path} to localize again"]


def test_a_full_disk_is_one_line_and_what_was_written_stays(frames, tmp_path):
    def record() -> None:
        with PartialRun(tmp_path) as partial:
            for frame in frames:
                partial.add(frame)

    two_and_a_half = int(2.5 * len(frames[0].model_dump_json()))
    with files_of_at_most(two_and_a_half), pytest.raises(DataError, match="cannot write") as caught:
        record()
    assert caught.value.__notes__ == [f"2 frames are kept in {tmp_path / 'partial'}"]
    assert read_frames(tmp_path / "partial") == frames[:2]


def test_two_runs_into_one_folder_do_not_mix(frames, tmp_path):
    with PartialRun(tmp_path) as first:
        first.add(frames[0])
        with pytest.raises(DataError, match="another process"), PartialRun(tmp_path) as second:
            second.add(frames[1])
        first.add(frames[2])
        assert read_frames(tmp_path / "partial") == [frames[0], frames[2]]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 3, 0, 1], [0, 1, 2, 1, 3]])
def test_a_published_run_is_sorted_and_has_each_stamp_once(order, frames, tmp_path):
    write_run(tmp_path, invented.estimates(invented.drive(12)), frames, DIGESTS)
    with PartialRun(tmp_path) as partial:
        for index in order:
            partial.add(frames[index])
        partial.publish()
    assert read_frames(tmp_path) == frames[:4]
    assert len(read_tum(tmp_path / "trajectory.txt")) == 4
    assert not (tmp_path / "summary.json").exists()  # it was of another run
    assert not (tmp_path / "partial").exists()
