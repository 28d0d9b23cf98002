"""Localizing along bags and lists of images, on a small generated street."""

import itertools
import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.drives import first_frames
from helpers.events import with_image
from helpers.faults import stop_after
from pixloc_ros.cli import main
from pixloc_ros.cli import replay as commands
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.common.progress import silent
from pixloc_ros.config import Config, from_flat, load
from pixloc_ros.errors import BagError, ConfigError, DataError
from pixloc_ros.evaluation.frames import read_frames
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_poses, read_tum, write_poses
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import PosedImages, read_posed_images
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.retrieval import describe
from pixloc_ros.priors import mounting
from pixloc_ros.replay import camera_parameters
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import create_bag, truth_path
from pixloc_ros.replay.calibration_file import read_calibration
from pixloc_ros.replay.queries import frames_path, read_queries
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import ReplayResult, replay
from pixloc_ros.replay.verified_frames import localized_bag
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RefusedMessage,
)
from pixloc_ros.session import Session
from pixloc_ros.types import Reason

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def street(street: Path) -> Path:
    return street / "data"


@pytest.fixture(scope="module")
def map_folder(street, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "street"
    mapping = street / "mapping"
    T_base_cam = np.reshape(json.loads((mapping / "meta.json").read_text())["T_base_cam"], (4, 4))
    options = BuildOptions(T_base_cam=T_base_cam)
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, folder, options)
    return folder


@pytest.fixture(scope="module")
def drive(street) -> PosedImages:
    """The first nine frames: each test localizes all of them."""
    whole = read_posed_images(street / "drive" / "meta.json", street / "drive" / "images")
    return first_frames(whole, 9)


@pytest.fixture(scope="module")
def bag(drive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "drive"
    create_bag(drive, folder, BagOptions(gnss="none", initial_pose=True, exclude_every=0))
    return folder


@pytest.fixture(scope="module")
def localizer(map_folder) -> Localizer:
    return Localizer(Config(map=str(map_folder)))


@pytest.fixture(scope="module")
def events(bag) -> list:
    with BagReader(bag) as reader:
        return list(reader)


def session_of(localizer, max_gap_s=1.0, **changes) -> Session:
    node = localizer.config.node.model_copy(update=changes)
    priors = localizer.config.priors.model_copy(update={"odometry_max_gap_s": max_gap_s})
    config = localizer.config.model_copy(update={"node": node, "priors": priors})
    return Session(Localizer(config, localizer.map))


def test_fixes_are_placed_in_a_map_of_a_projected_frame(street, drive, tmp_path):
    pyproj = pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    crs, latitude_deg, longitude_deg = "EPSG:25832", 49.01, 6.2  # two degrees off north
    proj = pyproj.Proj(crs)
    zero = (*proj(longitude_deg, latitude_deg), 110.0)
    turned_deg = -proj.get_factors(longitude_deg, latitude_deg).meridian_convergence
    assert turned_deg > 2
    flat = Datum(
        latitude_deg=latitude_deg, longitude_deg=longitude_deg, altitude_m=110, yaw_deg=turned_deg
    )
    create_bag(drive, tmp_path / "bag", BagOptions(datum=flat, exclude_every=0))
    mapping, folder = street / "mapping", tmp_path / "map"
    command = ["map", "build", "--colmap", mapping / "colmap", "--images", mapping / "images"]
    options = ["--output", folder, "--crs", ",".join(map(str, (crs, *zero)))]
    run = CliRunner().invoke(main.build(), [str(word) for word in (*command, *options)])
    assert run.exit_code == 0 and "EPSG:25832, zero at" in run.output, run.output
    result = replay(tmp_path / "bag", Config(map=str(folder)), tmp_path / "run")
    first = result.estimates[0]
    assert first.prior.source == "gnss" and first.ok
    assert result.summary.frames_localized == result.summary.frames_total
    assert max(errors_m(result.estimates, tmp_path / "bag")) < 0.1


def test_fixes_on_a_map_without_a_datum_are_told_with_the_remedy(drive, map_folder, tmp_path):
    datum = Datum(latitude_deg=49, longitude_deg=8.4, altitude_m=110, yaw_deg=0)
    create_bag(first_frames(drive, 2), tmp_path / "bag", BagOptions(datum=datum, exclude_every=0))
    config = Config(map=str(map_folder))
    result = replay(tmp_path / "bag", config, tmp_path / "run", report=False)
    assert any("gnss_without_datum" in note and "--datum" in note for note in result.notes)


def errors_m(estimates, bag) -> list[float]:
    truth = read_tum(truth_path(bag))
    return [se3.distance_m(e.T_map_base, truth.at(e.stamp_ns)) for e in estimates if e.ok]


# --- bags -----------------------------------------------------------------------------------------


def test_a_drive_is_localized_and_the_files_of_the_run_are_written(bag, map_folder, tmp_path):
    result = replay(bag, Config(map=str(map_folder)), tmp_path / "run")
    frames = len(read_tum(truth_path(bag)))
    assert result.summary.frames_total == frames
    assert result.summary.frames_localized == frames
    assert max(errors_m(result.estimates, bag)) < 0.1
    assert [e.prior.source for e in result.estimates][1:] == ["odometry"] * (frames - 1)
    assert result.notes == []
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"trajectory.txt", "frames.jsonl", "summary.json", "config.yaml"} <= written
    assert {"report.md", "trajectory.png", "overlay_worst.jpg"} <= written
    assert len(read_tum(tmp_path / "run" / "trajectory.txt")) == frames


def test_a_bag_that_loops_begins_anew(localizer, events, bag):
    session = session_of(localizer, max_gap_s=0.3)  # the drive lasts less than a second
    estimates = list(session.run([*events, *events]))
    assert session.counters["time.went_back"] == 1
    half = len(estimates) // 2
    assert all(estimate.ok for estimate in estimates)
    for first, second in zip(estimates[:half], estimates[half:], strict=True):
        np.testing.assert_array_equal(first.T_map_base, second.T_map_base)


def test_frames_wait_for_odometry_that_is_recorded_late(localizer, events):
    def late(event) -> int:
        stamp_ns = getattr(event, "stamp_ns", 0)
        return stamp_ns + 150_000_000 if isinstance(event, OdometryEvent) else stamp_ns

    in_time = list(session_of(localizer).run(events))
    delayed = list(session_of(localizer).run(sorted(events, key=late)))
    # Not the first two: they came before any odometry, so there was nothing to wait for.
    for a, b in zip(in_time[2:], delayed[2:], strict=True):
        assert se3.distance_m(a.T_map_base, b.T_map_base) < 0.01
        assert b.prior.source == "odometry"


def test_a_mounting_and_a_time_offset_in_the_settings_win_over_the_bag(localizer, events, bag):
    T_base_cam = read_drives([bag])[0].cameras[0].T_base_cam
    moved = se3.make(T_base_cam[:3, :3], T_base_cam[:3, 3] + [0.0, 0.3, 0.0])
    changes = {"camera_mounting": (*moved[:3, 3], *se3.quat_xyzw(moved))}
    changes["camera_time_offset_s"] = 0.04
    as_recorded = list(session_of(localizer).run(events))
    estimates = list(session_of(localizer, **changes).run(events))
    for before, after in zip(as_recorded, estimates, strict=True):
        assert after.stamp_ns - before.stamp_ns == 40_000_000
        # The camera is where it was, so the vehicle is not.
        assert se3.distance_m(before.T_map_base @ T_base_cam, after.T_map_base @ moved) < 0.02


def test_images_are_found_again_although_their_stamps_are_shifted(bag, map_folder):
    node = {"camera_time_offset_s": 0.04}
    config = Config(map=str(map_folder), node=node)
    with BagReader(bag) as reader:
        image_rgb = {event.stamp_ns: event.image_rgb for event in reader.events(parts=("image",))}
    with localized_bag(bag, config) as session:
        assert len(session.frames) > 3
        for frame in session.frames:
            seen = image_rgb[frame.stamp_ns - 40_000_000]
            np.testing.assert_array_equal(frame.read_image(), seen)


def test_the_camera_of_a_bag_is_calibrated(bag, drive, map_folder, tmp_path, monkeypatch):
    true = drive.cameras[0]
    wrong = [replace(true, focal=1.01 * true.focal)] * len(drive.files)
    unfocused = tmp_path / "unfocused"
    options = BagOptions(gnss="none", initial_pose=True, exclude_every=0)
    create_bag(replace(drive, cameras=wrong), unfocused, options)
    output, camera_info = tmp_path / "camera.yaml", tmp_path / "camera_info.yaml"
    command = ["calibrate", str(map_folder), str(unfocused), "--output", str(output)]
    unasked = CliRunner().invoke(main.build(), [*command, "--camera-info", str(camera_info)])
    assert isinstance(unasked.exception, ConfigError) and "--focal" in str(unasked.exception)
    command += ["--focal-length", "--readout", "--camera-info", str(camera_info)]
    refused = CliRunner().invoke(main.build(), command)
    assert isinstance(refused.exception, DataError) and "longer drive" in str(refused.exception)
    assert not output.exists() and not camera_info.exists()
    monkeypatch.setattr(mounting, "MIN_STEPS", 4)
    monkeypatch.setattr(camera_parameters, "MIN_FRAMES", 4)
    done = CliRunner().invoke(main.build(), command)
    assert done.exit_code == 0, done.output
    assert "not told by this drive" in done.output  # it is straight
    focal = read_calibration(camera_info).focal
    np.testing.assert_allclose(focal, true.focal, rtol=0.0015)
    assert load(output).camera.readout_s == pytest.approx(0.0, abs=0.003)
    found, node = read_drives([bag])[0].cameras[0].T_base_cam, load(output).node
    calibrated = se3.from_quat_xyzw(node.camera_mounting[3:], node.camera_mounting[:3])
    assert se3.distance_m(calibrated, found) < 0.1 and se3.angle_deg(calibrated, found) < 1.0
    replayed = ["replay", str(bag), "--map", str(map_folder), "--output", str(tmp_path / "run")]
    again = CliRunner().invoke(main.build(), [*replayed, "--config", str(output), "--no-report"])
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        ({"camera_mounting": [1, 0, 0, 0, 0, 0, 0]}, "quaternion"),
        ({"camera_mounting": [0, 0, 0, 0, 0, 0, 1], "cameras": "front,left"}, "single camera"),
    ],
)
def test_mountings_that_cannot_be(node, complaint):
    with pytest.raises(ConfigError, match=complaint):
        from_flat({f"node.{name}": value for name, value in node.items()})


def test_without_odometry_the_last_motion_goes_on(localizer, events, bag):
    without = [event for event in events if not isinstance(event, OdometryEvent)]
    estimates = list(session_of(localizer).run(without))
    assert sum(estimate.ok for estimate in estimates) >= len(estimates) - 1
    assert max(errors_m(estimates, bag)) < 0.1


def test_odometry_that_ends_does_not_hold_the_frames_back(localizer, events):
    images = [event for event in events if isinstance(event, ImageEvent)]
    end_ns = images[2].stamp_ns
    cut = [e for e in events if not isinstance(e, OdometryEvent) or e.stamp_ns < end_ns]
    assert len(list(session_of(localizer).run(cut))) == len(images)


def test_a_calibration_that_turns_bad_stops_the_frames_until_the_next_good_one(localizer, events):
    infos = [i for i, event in enumerate(events) if isinstance(event, CameraInfoEvent)]
    bad = events.copy()
    for index in infos[3:5]:
        stamp_ns = events[index].stamp_ns
        bad[index] = RefusedMessage(stamp_ns, "camera_info", "camera_info_unusable", "focal is 0")
    session = session_of(localizer)
    reasons = [estimate.reason for estimate in session.run(bad)]
    assert reasons[3:5] == [Reason.NO_CAMERA_INFO] * 2
    assert set(reasons[:3] + reasons[5:]) == {Reason.OK}
    assert session.counters["camera_info.bad.camera_info_unusable"] == 2


def test_images_of_another_size_than_their_calibration_fail_and_are_told(localizer, events):
    odd = [with_image(e, e.image_rgb[:100]) if isinstance(e, ImageEvent) else e for e in events]
    estimates = list(session_of(localizer).run(odd))
    assert {estimate.reason for estimate in estimates} == {Reason.BAD_IMAGE}
    assert "320x100" in estimates[0].message


def test_bad_images_count_as_frames(localizer, events):
    images = [i for i, event in enumerate(events) if isinstance(event, ImageEvent)]
    bad = events.copy()
    bad[images[4]] = RefusedMessage(events[images[4]].stamp_ns, "image", "image_step", "step is 7")
    estimates = list(session_of(localizer).run(bad))
    assert [e.ok for e in estimates] == [i != 4 for i in range(len(images))]
    assert estimates[4].message == "step is 7"


def test_repeated_images_are_localized_once(localizer, events):
    twice = list(itertools.chain(*([e, e] if isinstance(e, ImageEvent) else [e] for e in events)))
    session = session_of(localizer)
    count = sum(isinstance(event, ImageEvent) for event in events)
    assert len(list(session.run(twice))) == session.counters["image.repeated"] == count


def test_frame_ids_that_do_not_match_end_it_with_the_ones_there_are(bag, map_folder, tmp_path):
    config = from_flat({"map": str(map_folder), "node.base_frame": "car"})
    with pytest.raises(BagError, match=r"'car'.*base_link, camera_optical.*node\.base_frame"):
        replay(bag, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_poses_of_another_frame_are_not_believed(localizer, events):
    moved = [replace(e, frame_id="utm") if isinstance(e, PoseEvent) else e for e in events]
    session = session_of(localizer)
    estimates = list(session.run(moved))
    assert {e.prior.source for e in estimates if e.prior} <= {"retrieval", "odometry"}
    assert session.counters["initialpose.bad.frame"] == 1


def test_a_bag_that_is_cut_off_gives_what_it_has_and_says_so(bag, map_folder, tmp_path):
    copy = shutil.copytree(bag, tmp_path / "cut")
    file = copy / "drive.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 2000])  # into the index
    result = replay(copy, Config(map=str(map_folder)), tmp_path / "run", report=False, every=3)
    assert "cut off" in result.notes[0]
    assert "cut off" in (tmp_path / "run" / "summary.json").read_text()
    assert result.summary.frames_localized == result.summary.frames_total > 0


def test_a_replay_that_is_stopped_leaves_what_it_has(bag, map_folder, tmp_path):
    def run(progress) -> ReplayResult:
        config = Config(map=str(map_folder))
        return replay(bag, config, tmp_path, report=False, every=4, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run(stop_after(2))
    partial = tmp_path / "partial"
    assert [path.name for path in tmp_path.iterdir()] == ["partial"]
    assert "after 2 of 3 frames" in (partial / "summary.json").read_text()
    found, poses = read_frames(partial), read_tum(partial / "trajectory.txt")
    assert found[1].error.translation_m < 0.1
    assert len(found) == len(poses) == 2
    whole = run(silent)
    assert read_frames(tmp_path)[:2] == [
        frame.model_copy(update={"timing_ms": whole_frame.timing_ms})
        for frame, whole_frame in zip(found, read_frames(tmp_path), strict=False)
    ]
    assert whole.summary.interrupted is None
    assert not partial.exists()


def test_nothing_is_written_when_the_bag_cannot_be_used(bag, map_folder, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(BagError):
        replay(tmp_path / "absent", Config(map=str(map_folder)), output)
    with pytest.raises(DataError):
        replay(bag, Config(map=str(map_folder)), output, ground_truth=tmp_path / "absent.txt")
    assert not output.exists()
    output.write_text("a file")
    with pytest.raises(DataError, match="is a file"):
        replay(bag, Config(map=str(map_folder)), output)


def test_the_command_prints_a_table(bag, map_folder, tmp_path):
    arguments = ["replay", str(bag), "--map", str(map_folder), "--output", str(tmp_path / "run")]
    arguments += ["--every", "4", "--no-report", "--set", "alignment.robust_scale=0.2"]
    result = CliRunner().invoke(main.build(), arguments)
    assert result.exit_code == 0, result.output
    assert "median error" in result.output
    assert "robust_scale: 0.2" in (tmp_path / "run" / "config.yaml").read_text()
    assert not (tmp_path / "run" / "report.md").exists()


# --- lists of images ------------------------------------------------------------------------------


@pytest.fixture
def queries(street, tmp_path) -> Path:
    """Two folders with images of the same names, queries.txt, priors.txt and truth.txt."""
    drive = json.loads((street / "drive" / "meta.json").read_text())["images"]
    rng = np.random.default_rng(0)
    truth, lines = {}, []
    for folder, entry in (("front", drive[1]), ("back", drive[6])):
        (tmp_path / folder).mkdir()
        shutil.copy(street / "drive" / "images" / entry["file"], tmp_path / folder / "0.jpg")
        fx, fy, cx, cy = entry["K"]
        size = f"{entry['width']} {entry['height']}"
        lines.append(f"{folder}/0.jpg PINHOLE {size} {fx} {fy} {cx + 0.5} {cy + 0.5}")
        T_world_cam = np.vstack([np.reshape(entry["T_world_cam"], (3, 4)), [0, 0, 0, 1]])
        truth[f"{folder}/0.jpg"] = se3.inverse(T_world_cam)
    priors = {name: T.copy() for name, T in truth.items()}
    for T in priors.values():
        T[:3, 3] += rng.normal(0, 0.3, 3)
    (tmp_path / "queries.txt").write_text("# hloc\n\n" + "\n".join(lines) + "\n")
    write_poses(tmp_path / "priors.txt", priors)
    write_poses(tmp_path / "truth.txt", truth)
    return tmp_path


def localize(folder, map_folder, *more, begin=("--priors", "priors.txt")) -> object:
    arguments = ["localize", "--map", str(map_folder), "--images", str(folder)]
    arguments += ["--queries", str(folder / "queries.txt"), "--output", str(folder / "poses.txt")]
    for option, file in zip(begin[::2], begin[1::2], strict=True):
        arguments += [option, str(folder / file)]
    return CliRunner().invoke(main.build(), [*arguments, *more])


def located(folder: Path) -> int:
    """How many images are where they are."""
    found, truth = read_poses(folder / "poses.txt"), read_poses(folder / "truth.txt")
    return sum(
        se3.distance_m(se3.inverse(T), se3.inverse(truth[name])) < 0.1 for name, T in found.items()
    )


def test_images_of_the_same_name_in_two_folders_stay_apart(queries, map_folder):
    result = localize(queries, map_folder, "--prior-sigma", "0.5,1.0")
    assert result.exit_code == 0, result.output
    found, truth = read_poses(queries / "poses.txt"), read_poses(queries / "truth.txt")
    assert list(found) == list(truth) == ["front/0.jpg", "back/0.jpg"]
    for name, T_cam_world in found.items():
        assert se3.distance_m(se3.inverse(T_cam_world), se3.inverse(truth[name])) < 0.1
    records = frames_path(queries / "poses.txt").read_text().splitlines()
    assert [json.loads(line)["name"] for line in records] == list(truth)


def test_a_list_that_is_stopped_goes_on_where_it_was(queries, map_folder, monkeypatch):
    left = []

    def tracked(items, description, total):
        left.append(total)
        return items

    monkeypatch.setattr(commands, "track", stop_after(1))
    localize(queries, map_folder)
    partial = queries / "poses.partial"
    assert [frame.name for frame in read_frames(partial)] == ["front/0.jpg"]
    assert not (queries / "poses.txt").exists()
    monkeypatch.setattr(commands, "track", tracked)
    refused = localize(queries, map_folder, "--prior-sigma", "3.0,4.0").exception
    assert isinstance(refused, DataError)
    assert "results of another priors" in str(refused)
    assert localize(queries, map_folder).exit_code == 0
    assert left == [1]
    assert located(queries) == 2
    assert [f.stamp_ns for f in read_frames(frames_path(queries / "poses.txt"))] == [0, 1]
    assert not partial.exists()


def test_images_without_priors_are_searched_for_on_the_whole_map(queries, map_folder):
    result = localize(queries, map_folder, begin=())
    assert result.exit_code == 0, result.output
    assert located(queries) == 2


def test_images_begin_at_the_keyframes_that_they_are_paired_with(queries, map_folder):
    truth = read_poses(queries / "truth.txt")
    map_ = Map.load(map_folder)
    lines = ["front/0.jpg of_another_map.jpg"]
    for name, T_cam_world in truth.items():
        away_m = map_.keyframe_T_map_cam[:, :3, 3] - se3.inverse(T_cam_world)[:3, 3]
        near = np.argsort(np.linalg.norm(away_m, axis=1))[:3]
        lines += [f"{name} {map_.keyframe_names[i]}" for i in near]
    (queries / "pairs.txt").write_text("\n".join(lines) + "\n")
    result = localize(queries, map_folder, begin=("--pairs", "pairs.txt"))
    assert result.exit_code == 0, result.output
    assert located(queries) == 2


def test_images_are_matched_by_the_descriptors_of_another_system(queries, map_folder):
    """Those of ours, times two, under the names that hloc would use."""
    h5py = pytest.importorskip("h5py")
    map_, extractor = Map.load(map_folder), FeatureExtractor()
    with h5py.File(queries / "map.h5", "w") as file:
        for name, descriptor in zip(map_.keyframe_names, map_.keyframe_descriptors, strict=True):
            file[f"{name}/global_descriptor"] = 2 * descriptor
    with h5py.File(queries / "query.h5", "w") as file:
        for name in read_poses(queries / "truth.txt"):
            image_rgb = cv2.imread(str(queries / name))[..., ::-1]
            file[f"{name}/global_descriptor"] = describe(extractor.extract(image_rgb))
    both = ("--descriptors", "map.h5", "--descriptors", "query.h5")
    result = localize(queries, map_folder, begin=both)
    assert result.exit_code == 0, result.output
    assert located(queries) == 2
    result = localize(queries, map_folder, begin=("--descriptors", "map.h5"))
    assert result.exit_code == 1
    assert "2 images lack a global_descriptor, first 'front/0.jpg'" in str(result.exception)


@pytest.mark.parametrize(
    ("begin", "text", "complaint"),
    [
        (("--pairs", "p.txt"), "front/0.jpg", r"p\.txt:1: expected `query reference`"),
        (
            ("--pairs", "p.txt"),
            "front/0.jpg other",
            "pairs no query with a keyframe",
        ),
        (("--pairs", "none.txt"), "", "cannot read pairs"),
        pytest.param(
            *(("--descriptors", "p.txt"), "no HDF5", "cannot read .*p.txt"),
            marks=pytest.mark.skipif(not find_spec("h5py"), reason="needs h5py"),
        ),
        (("--pairs", "p.txt", "--priors", "priors.txt"), "", "give one of --priors"),
    ],
)
def test_wrong_pairs_and_descriptors(begin, text, complaint, queries, map_folder):
    (queries / "p.txt").write_text(text)
    result = localize(queries, map_folder, begin=begin)
    assert result.exit_code == 1
    assert re.search(complaint, str(result.exception)), result.exception
    assert not (queries / "poses.txt").exists()


def test_images_that_fail_are_recorded_and_have_no_pose(queries, map_folder):
    (queries / "back" / "0.jpg").write_bytes(b"no picture")
    image = cv2.imread(str(queries / "front" / "0.jpg"))
    cv2.imwrite(str(queries / "front" / "0.jpg"), image[:100])
    result = localize(queries, map_folder)
    assert result.exit_code == 0, result.output
    assert "localized 0 of 2" in result.output
    records = frames_path(queries / "poses.txt").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in records] == ["bad_image"] * 2


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("queries.txt", "", "no queries"),
        ("queries.txt", "front/0.jpg PINHOLE 480 288 300", "queries.txt:1: .* has 4 parameters"),
        ("queries.txt", "front/0.jpg PINHOLE 480 288 0 0 1 1", "queries.txt:1: .*focal length"),
        ("queries.txt", "front/0.jpg 480 288 300", "queries.txt:1: expected `name MODEL"),
        ("queries.txt", "front/0.jpg PINHOLE x y 1 1 1 1", "queries.txt:1"),
        ("queries.txt", "absent.jpg PINHOLE 480 288 300 300 1 1", "absent.jpg does not exist"),
        ("priors.txt", "other.jpg 1 0 0 0 0 0 0", "no query has a prior.*front/0.jpg.*other.jpg"),
        ("priors.txt", "front/0.jpg 1 0 0", "priors.txt:1"),
    ],
)
def test_lists_that_are_wrong(file, text, complaint, queries, map_folder):
    (queries / file).write_text(text)
    result = localize(queries, map_folder)
    assert isinstance(result.exception, DataError)
    assert re.search(complaint, str(result.exception))
    assert not (queries / "poses.txt").exists()


def test_an_image_listed_twice_is_refused(queries):
    text = (queries / "queries.txt").read_text()
    (queries / "queries.txt").write_text(text + text)
    with pytest.raises(DataError, match=r"front/0\.jpg is listed twice"):
        read_queries(queries / "queries.txt")


# --- settings -------------------------------------------------------------------------------------


def test_settings_of_the_command_line_win_over_the_file(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("alignment: {robust_scale: 0.5, min_points: 20}\nmap: /elsewhere\n")
    settings = ["alignment.robust_scale=0.2", "alignment.iterations=[5, 6, 7]"]
    config = SettingsOptions(file, settings).resolve("/here")
    assert config.alignment.robust_scale == 0.2
    assert config.alignment.min_points == 20
    assert config.alignment.iterations == (5, 6, 7)
    assert config.map == "/here"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("alignment.robust_scle=1", "did you mean 'alignment.robust_scale'"),
        ("alignment.robust_scale=-1", "alignment.robust_scale"),
        ("alignment.robust_scale", "name=value"),
        ("alignment.robust_scale=[", "is not a value"),
    ],
)
def test_settings_that_cannot_be(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        SettingsOptions(given=[setting]).resolve(Path("/map"))
