"""Trajectories, errors against ground truth, and the report of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from evo.core import metrics as evo_metrics
from evo.core import sync
from evo.tools import file_interface
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from helpers import invented
from pixloc_ros.cli.evaluate import evaluate as evaluate_command
from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.compare import compare_poses, compare_trajectories
from pixloc_ros.evaluation.frames import PoseError, frame_result, read_frames, write_frames
from pixloc_ros.evaluation.metrics import GAUSSIAN_SHARE, evaluate
from pixloc_ros.evaluation.report import pick_overlays, write_report, write_run
from pixloc_ros.evaluation.tables import summary_rows
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import (
    Trajectory,
    associate,
    read_poses,
    read_tum,
    write_poses,
    write_tum,
)

pytestmark = pytest.mark.slow

coordinate = st.floats(-1e5, 1e5)
vector = st.tuples(coordinate, coordinate, coordinate)
rotation = st.tuples(*[st.floats(-1.5, 1.5)] * 3)


def rigid(rotvec: tuple, translation: tuple) -> np.ndarray:
    return se3.make(Rotation.from_rotvec(rotvec).as_matrix(), translation)


poses = st.builds(rigid, rotation, vector)


@pytest.fixture
def truth() -> Trajectory:
    return invented.drive()


# --- files of poses ---


@given(stamps=st.sets(st.integers(0, 2**61), min_size=1, max_size=5), T=poses)
@settings(max_examples=30)
def test_tum_keeps_every_nanosecond_and_a_nanometre(tmp_path_factory, stamps, T):
    path = tmp_path_factory.mktemp("tum") / "t.txt"
    write_tum(path, Trajectory.create(stamps, [T] * len(stamps)))
    back = read_tum(path)
    assert back.stamps_ns.tolist() == sorted(stamps)
    np.testing.assert_allclose(back.T_map_base[0, :3, 3], T[:3, 3], atol=1e-9)
    np.testing.assert_allclose(back.T_map_base[0, :3, :3], T[:3, :3], atol=1e-8)


def test_named_poses_keep_names_with_folders_and_blanks(tmp_path):
    T = rigid((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    write_poses(tmp_path / "p.txt", {"left/a b.jpg": T, "right/a b.jpg": se3.inverse(T)})
    back = read_poses(tmp_path / "p.txt")
    assert list(back) == ["left/a b.jpg", "right/a b.jpg"]
    np.testing.assert_allclose(back["left/a b.jpg"], T, atol=1e-8)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0 0 nan 0 0 0 1", "not finite"),
        ("2 0 0 0 0 0 0 1 9", "got 9 words"),
        ("2 0 0 0 0 0 0", "got 7 words"),
        ("nan 0 0 0 0 0 0 1", "not a stamp"),
        ("2 0 0 zero 0 0 0 1", "zero"),
        ("1 0 0 0 0 0 0 1", "not after"),
        ("0.5 0 0 0 0 0 0 1", "not after"),
        ("2 0 0 0 0 0 0 0", "norm 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    path = tmp_path / "t.txt"
    path.write_text(f"# t tx ty tz qx qy qz qw\n1 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(DataError, match=rf"t\.txt:3: .*{words}"):
        read_tum(path)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\x00\x81", None])
def test_files_without_poses_are_refused(tmp_path, content):
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    for read in (read_tum, read_poses):
        with pytest.raises(DataError, match=r"t\.txt"):
            read(path)


def test_a_name_twice_is_refused(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("a.jpg 1 0 0 0 0 0 0\na.jpg 1 0 0 0 1 0 0\n")
    with pytest.raises(DataError, match=r"p\.txt:2: image a\.jpg"):
        read_poses(path)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as part:
        part.write_text("half, then \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- time ---


def test_a_pose_between_two_is_halfway_and_none_is_invented_across_gaps():
    T_0, T_1 = rigid((0, 0, 0), (0, 0, 0)), rigid((0, 0, 0.2), (1, 0, 0))
    trajectory = Trajectory(np.array([0, 100, 2_000]) * 1_000_000, np.stack([T_0, T_1, T_1]))
    middle = trajectory.at(50_000_000)
    np.testing.assert_allclose(middle, rigid((0, 0, 0.1), (0.5, 0, 0)), atol=1e-12)
    assert trajectory.at(1_000_000_000) is None
    assert trajectory.at(-1_000_000) is None
    np.testing.assert_array_equal(trajectory.at(2_000_000_500), T_1)  # a rounded stamp


def test_each_stamp_finds_one_partner():
    a, b = np.array([0, 10, 20, 30]), np.array([9, 12, 21, 500])
    i, j = associate(a, b, tolerance_s=2e-9)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(1, 0), (2, 2)]


def test_an_unsorted_trajectory_is_refused():
    with pytest.raises(DataError, match="sorted"):
        Trajectory(np.array([1, 1]), np.stack([np.eye(4)] * 2))


# --- errors ---


@given(T_est=poses, T_true=poses, T_common=poses)
@settings(max_examples=50)
def test_errors_do_not_depend_on_the_map_frame(T_est, T_true, T_common):
    here = PoseError.of(T_est, T_true)
    there = PoseError.of(T_common @ T_est, T_common @ T_true)
    assert there.translation_m == pytest.approx(here.translation_m, abs=1e-6)
    assert there.rotation_deg == pytest.approx(here.rotation_deg, abs=1e-5)
    np.testing.assert_allclose(there.along_cross_up_m, here.along_cross_up_m, atol=1e-6)


def test_along_is_ahead_of_the_true_vehicle_and_cross_to_its_left():
    T_true = rigid((0, 0, np.pi / 2), (10, 20, 0))  # heading along map y
    T_est = rigid((0, 0, np.pi / 2 + 0.1), (9, 22, 3))
    error = PoseError.of(T_est, T_true)
    np.testing.assert_allclose(error.along_cross_up_m, (2, 1, 3), atol=1e-12)
    np.testing.assert_allclose(error.map_rotation_deg, (0, 0, np.rad2deg(0.1)), atol=1e-9)


def test_errors_agree_with_evo(tmp_path, truth):
    found = invented.estimates(truth)[3:]
    write_tum(tmp_path / "truth.txt", truth)
    write_run(tmp_path, found, invented.records(found, truth), {})
    ours = compare_trajectories(read_tum(tmp_path / "trajectory.txt"), truth)

    pair = sync.associate_trajectories(
        file_interface.read_tum_trajectory_file(tmp_path / "truth.txt"),
        file_interface.read_tum_trajectory_file(tmp_path / "trajectory.txt"),
    )
    for relation, field in (
        (evo_metrics.PoseRelation.translation_part, "translation_m"),
        (evo_metrics.PoseRelation.rotation_angle_deg, "rotation_deg"),
    ):
        ape = evo_metrics.APE(relation)
        ape.process_data(pair)
        errors = [getattr(frame.error, field) for frame in ours if frame.error]
        np.testing.assert_allclose(errors, ape.error, atol=1e-6)
    assert evaluate(ours).median_error_m == pytest.approx(
        evaluate([frame_result(e, truth) for e in found]).median_error_m, abs=1e-8
    )


def test_frames_without_a_pose_count_as_failed(truth):
    found = invented.estimates(truth)
    found[:10] = [invented.rejected(e) for e in found[:10]]
    found[10:15] = [invented.without_prior(e) for e in found[10:15]]
    far_off = found[20].T_map_base.copy()
    far_off[0, 3] += 0.6
    found[20] = replace(found[20], T_map_base=far_off)

    summary = evaluate([frame_result(e, truth) for e in found])
    assert (summary.frames_total, summary.frames_localized) == (30, 15)
    assert summary.recall["0.5 m 5 deg"] == pytest.approx(14 / 30)
    assert summary.false_accepts == 1
    assert summary.reasons == {"ok": 15, "high_cost": 10, "no_prior": 5}
    assert summary.max_error_m > 0.5
    assert summary.latency_ms.p50 == pytest.approx(
        np.median([150 + i for i in (*range(10), *range(15, 30))])
    )


def test_a_trajectory_answers_for_every_true_pose(truth):
    part = Trajectory(truth.stamps_ns[::2], truth.T_map_base[::2])
    summary = evaluate(part, truth)
    assert summary.recall["0.1 m 0.5 deg"] == pytest.approx(0.5)
    assert summary.reasons == {"ok": 15, "missing": 15}


def test_coverage_tells_honest_from_boastful_covariances():
    truth = invented.drive(400)
    honest = evaluate([frame_result(e, truth) for e in invented.estimates(truth)]).coverage
    for k, expected in enumerate(GAUSSIAN_SHARE, start=1):
        np.testing.assert_allclose(honest.translation[str(k)], expected, atol=0.07)
        np.testing.assert_allclose(honest.rotation[str(k)], expected, atol=0.07)
    boastful = [replace(e, covariance=invented.COVARIANCE / 100) for e in invented.estimates(truth)]
    shares = evaluate([frame_result(e, truth) for e in boastful]).coverage
    assert max(shares.translation["1"]) < 0.2


def test_without_truth_only_what_is_known_is_told(truth):
    summary = evaluate([frame_result(e) for e in invented.estimates(truth)])
    assert summary.recall is None
    assert summary.median_error_m is None
    assert summary.false_accepts is None
    assert summary.latency_ms is not None
    assert [label for label, _ in summary_rows(summary)] == ["localized", "latency p50, p95, p99"]


def test_no_frames_at_all_is_a_summary_too():
    summary = evaluate([])
    assert summary.frames_total == 0
    assert summary_rows(summary)


def test_named_poses_are_compared_by_name(truth):
    T_cam_map = {f"{i}.jpg": se3.inverse(T) for i, T in enumerate(truth.T_map_base[:4])}
    frames = compare_poses({"2.jpg": T_cam_map["2.jpg"]}, T_cam_map)
    assert [frame.ok for frame in frames] == [False, False, True, False]
    assert evaluate(frames).recall["0.1 m 0.5 deg"] == 0.25


# --- the files of a run ---


def test_frames_survive_the_file(tmp_path, truth):
    found = invented.estimates(truth)
    found[1] = invented.rejected(found[1])
    found[2] = invented.without_prior(found[2])
    frames = [frame_result(e, truth) for e in found]
    write_frames(tmp_path / "frames.jsonl", frames)
    assert read_frames(tmp_path) == frames
    assert frames[0].runner_up_cost is None  # infinity is not JSON
    assert frames[1].candidate_error is not None
    assert frames[1].error is None


def test_a_bad_line_of_frames_is_named(tmp_path, truth):
    path = tmp_path / "frames.jsonl"
    write_frames(path, [frame_result(e) for e in invented.estimates(truth)[:2]])
    path.write_text(path.read_text()[:-40] + "\n")
    with pytest.raises(DataError, match=r"frames\.jsonl:2"):
        read_frames(path)


def test_a_run_holds_only_accepted_poses_in_time_order(tmp_path, truth):
    found = invented.estimates(truth)
    looped = [*found[10:], invented.rejected(found[0]), *found[1:12]]  # the bag began again
    summary = write_run(
        tmp_path,
        looped,
        invented.records(looped),
        {"map_sha256": "m", "weights_sha256": "w", "bag": "b"},
    )
    assert len(read_tum(tmp_path / "trajectory.txt")) == 29
    T_cam_map = read_poses(tmp_path / "poses.txt")["000011.jpg"]
    np.testing.assert_allclose(
        se3.inverse(T_cam_map) @ se3.inverse(se3.base_from_optical()),
        found[11].T_map_base,
        atol=1e-7,
    )
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["frames_total"] == len(looped) == summary.frames_total
    assert (stored["map_sha256"], stored["weights_sha256"]) == ("m", "w")
    assert stored["provenance"] == {"bag": "b"}


def test_the_report_has_pictures_of_best_median_and_worst(tmp_path, truth):
    found = invented.estimates(truth)
    found[4] = invented.rejected(found[4])
    found[5] = invented.without_prior(found[5])
    frames = [frame_result(e, truth) for e in found]
    picks = pick_overlays(found, frames)
    errors = [f.error.translation_m for f in frames if f.error]
    assert frames[picks["best"]].error.translation_m == min(errors)
    assert frames[picks["worst"]].error.translation_m == max(errors)

    image = np.full((200, 320, 3), 90, np.uint8)
    keyframe_xyz = truth.T_map_base[::3, :3, 3]
    page = write_report(
        tmp_path, found, frames, evaluate(frames), lambda estimate: image, keyframe_xyz
    ).read_text()
    names = ["trajectory.png", "errors.png", "cumulative.png", "prior.png", "quality.png"]
    for name in [*names, *(f"overlay_{which}.jpg" for which in picks)]:
        assert f"({name})" in page
        assert cv2.imread(str(tmp_path / name)).shape[1] > 900
    assert "cost 0.83 is above 0.80" in page


def test_a_run_where_nothing_worked_is_reported(tmp_path, truth):
    found = [invented.without_prior(e) for e in invented.estimates(truth)]
    summary = write_run(tmp_path, found, invented.records(found, truth), {})
    assert summary.recall["0.5 m 5 deg"] == 0.0
    for folder, frames in (
        ("truth", invented.records(found, truth)),
        ("no_truth", invented.records(found)),
    ):
        page = write_report(
            tmp_path / folder, found, frames, evaluate(frames), lambda estimate: None
        )
        assert "no_prior" in page.read_text()


# --- the command ---


def run_command(*arguments: object):
    app = typer.Typer()
    app.command()(evaluate_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run_folder(tmp_path, truth) -> Path:
    write_tum(tmp_path / "truth.txt", truth)
    found = invented.estimates(truth)
    write_run(tmp_path / "run", found, invented.records(found, truth), {"map_sha256": "abc"})
    return tmp_path


@pytest.mark.parametrize("estimate", ["run", "run/frames.jsonl", "run/trajectory.txt"])
def test_the_command_prints_the_table_and_writes_the_report(run_folder, estimate):
    output = run_folder / "report"
    result = run_command(
        "--estimate", run_folder / estimate, "--ground-truth", run_folder / "truth.txt",
        "--output", output,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "within 0.1 m 0.5 deg" in result.output
    summary = json.loads((output / "summary.json").read_text())
    assert summary["recall"]["0.25 m 2 deg"] == 1.0
    assert summary["map_sha256"] == ("abc" if estimate == "run" else None)
    assert (output / "report.md").exists()
    assert (output / "errors.png").exists()


def test_the_command_says_what_is_missing(run_folder, truth):
    poses_only = run_command("--estimate", run_folder / "run/trajectory.txt")
    assert "add --ground-truth" in str(poses_only.exception)
    absent = run_command("--estimate", run_folder / "absent")
    assert "absent does not exist" in str(absent.exception)
    later = Trajectory(truth.stamps_ns + 10**15, truth.T_map_base)
    write_tum(run_folder / "later.txt", later)
    for estimate in ("run", "run/trajectory.txt"):
        apart = run_command(
            "--estimate", run_folder / estimate, "--ground-truth", run_folder / "later.txt"
        )
        assert isinstance(apart.exception, DataError)
        assert "no frame in common" in str(apart.exception)
    absent = run_command("--estimate", run_folder / "nothing", "--ground-truth", run_folder / "x")
    assert "nothing" in str(absent.exception)
