"""Bags that are written: read again they are the same, and what cannot be is refused."""

import json
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pymap3d
import pytest
from typer.testing import CliRunner

from helpers.drives import HEIGHT, WIDTH, curve_pose, of, read, read_drive, write_drive
from pixloc_ros.cli import bag as bag_command
from pixloc_ros.errors import BagError, ConfigError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.maps.datum import Datum
from pixloc_ros.replay import simulated_sensors
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import create_bag, truth_path
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RefusedMessage,
    StaticTransformsEvent,
)

DATUM = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=30.0)


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("drive"))


@pytest.fixture(scope="module")
def drive(meta):
    return read_drive(meta)


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def bag(request, drive, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "bag"
    options = BagOptions(datum=DATUM, compressed=False, storage=request.param, initial_pose=True)
    create_bag(drive, path, options)
    return path


# --- writing and reading again --------------------------------------------------------------------


def test_everything_written_is_read_again(bag, drive):
    events, reader = read(bag)
    images = of(ImageEvent, events)
    assert reader.truncated is None
    assert not of(RefusedMessage, events)
    assert [image.stamp_ns for image in images] == drive.stamps_ns.tolist()
    pixels = cv2.imread(str(drive.files[7]))[..., ::-1]
    np.testing.assert_array_equal(images[7].image_rgb, pixels)
    camera = of(CameraInfoEvent, events)[0].camera
    np.testing.assert_allclose(camera.K(), drive.cameras[0].K())
    (extrinsic,) = of(StaticTransformsEvent, events)[0].transforms
    assert (extrinsic.parent, extrinsic.child) == ("base_link", images[0].frame_id)
    np.testing.assert_allclose(extrinsic.T_parent_child, drive.T_base_cam, atol=1e-12)


def test_truth_is_the_pose_of_the_vehicle_at_the_frames(bag, drive):
    truth = read_tum(truth_path(bag))
    assert truth.stamps_ns.tolist() == drive.stamps_ns.tolist()
    T_map_cam = truth.T_map_base @ drive.T_base_cam
    np.testing.assert_allclose(T_map_cam, [curve_pose(i) for i in range(12)], atol=1e-6)


def test_events_come_in_the_order_of_time_with_odometry_before_its_image(bag):
    events, _ = read(bag)
    stamped = [event for event in events if not isinstance(event, StaticTransformsEvent)]
    stamps = [event.stamp_ns for event in stamped]
    assert stamps == sorted(stamps)
    for index, event in enumerate(stamped):
        if isinstance(event, ImageEvent):
            before = of(OdometryEvent, stamped[:index])
            assert before[-1].stamp_ns == event.stamp_ns
            assert isinstance(stamped[index - 1], CameraInfoEvent)


def test_a_frame_can_be_read_once_more(bag, drive):
    with BagReader(bag) as reader:
        frames = of(ImageEvent, reader)
        again = reader.image(frames[3].stamp_ns)
        assert again is not None
        np.testing.assert_array_equal(again.image_rgb, frames[3].image_rgb)
        assert reader.image(1) is None


def test_fixes_lead_back_to_the_map(bag, drive):
    """A wrong sign of the yaw, or swapped axes, would be off by the length of the drive."""
    truth = simulated_sensors.TimedPoses(drive.stamps_ns, drive.T_map_base)
    fixes = of(FixEvent, read(bag)[0])
    yaw = np.deg2rad(DATUM.yaw_deg)
    for fix in fixes:
        place = (fix.latitude_deg, fix.longitude_deg, fix.altitude_m)
        datum = (DATUM.latitude_deg, DATUM.longitude_deg, DATUM.altitude_m)
        east, north, _ = pymap3d.geodetic2enu(*place, *datum)
        x, y = (
            np.cos(yaw) * east + np.sin(yaw) * north,
            -np.sin(yaw) * east + np.cos(yaw) * north,
        )
        there = truth.at(np.array([fix.stamp_ns]))[0]
        assert (
            np.hypot(x - there[0, 3], y - there[1, 3])
            < 1.0 + 4 * simulated_sensors.UBLOX.horizontal_sigma_m
        )
        assert fix.covariance_enu is not None


def test_pose_fixes_and_initial_pose(drive, tmp_path):
    create_bag(drive, tmp_path / "bag", BagOptions(gnss="pose", initial_pose=True))
    poses = of(PoseEvent, read(tmp_path / "bag")[0])
    assert Counter(pose.source for pose in poses) == {"gnss": 12, "initialpose": 1}
    first = next(pose for pose in poses if pose.source == "initialpose")
    assert se3.distance_m(first.T_frame_base, drive.T_map_base[0]) < 3.0
    assert (np.diag(first.covariance) > 0).all()


def test_frames_of_the_map_are_left_out_and_odometry_is_not(drive, tmp_path):
    create_bag(drive, tmp_path / "bag", BagOptions(gnss="none", exclude_every=3))
    events, _ = read(tmp_path / "bag")
    left = [i for i in range(12) if i % 3]
    assert [e.stamp_ns for e in of(ImageEvent, events)] == drive.stamps_ns[left].tolist()
    assert of(OdometryEvent, events)[0].stamp_ns == drive.stamps_ns[0]
    assert len(read_tum(truth_path(tmp_path / "bag"))) == len(left)


def test_reduced_images_have_reduced_calibration(drive, tmp_path):
    create_bag(drive, tmp_path / "bag", BagOptions(gnss="none", scale=0.5))
    events, _ = read(tmp_path / "bag")
    camera = of(CameraInfoEvent, events)[0].camera
    assert of(ImageEvent, events)[0].image_rgb.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert (camera.width, camera.height) == (WIDTH // 2, HEIGHT // 2)
    assert camera.center.tolist() == pytest.approx([(47.2 + 0.5) / 2 - 0.5, (31.9 + 0.5) / 2 - 0.5])


def test_jpegs_go_in_unchanged(tmp_path):
    meta = write_drive(tmp_path / "drive", count=2, suffix=".jpg")
    create_bag(read_drive(meta), tmp_path / "bag", BagOptions(gnss="none"))
    expected = cv2.imread(str(meta.parent / "images" / "000.jpg"))[..., ::-1]
    np.testing.assert_array_equal(of(ImageEvent, read(tmp_path / "bag")[0])[0].image_rgb, expected)


def test_a_world_with_optical_axes_is_turned_upright(tmp_path):
    content = json.loads(write_drive(tmp_path / "drive").read_text())
    del content["world_axes"]
    for i, entry in enumerate(content["images"]):
        T_world_cam = se3.inverse(se3.base_from_optical()) @ curve_pose(i)
        entry["T_world_cam"] = T_world_cam[:3].ravel().tolist()
    meta = tmp_path / "drive" / "meta.json"
    meta.write_text(json.dumps(content))
    T_map_base = read_drive(meta, "optical_to_ros").T_map_base
    np.testing.assert_allclose(T_map_base[:, 2, 3], 1.5, atol=1e-9)  # z is up
    assert (np.diff(T_map_base[:, 0, 3]) > 0).all()  # x is ahead


def test_the_same_seed_writes_the_same_messages(drive, tmp_path):
    options = BagOptions(datum=DATUM, degrade="rain", seed=4)
    create_bag(drive, tmp_path / "a", options)
    create_bag(drive, tmp_path / "b", options)
    create_bag(drive, tmp_path / "c", replace(options, seed=5))
    a, b, c = (of(OdometryEvent, read(tmp_path / name)[0])[-1].T_odom_child for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-6
    images = [of(ImageEvent, read(tmp_path / name)[0])[3].image_rgb for name in "ab"]
    np.testing.assert_array_equal(*images)


# --- what cannot be written -----------------------------------------------------------------------


def test_nothing_is_left_of_a_bag_that_fails(meta, tmp_path):
    drive = read_drive(meta)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    drive = replace(drive, files=(*drive.files[:-1], broken))
    output = tmp_path / "out" / "bag"
    with pytest.raises(DataError, match=r"broken\.png cannot be decoded"):
        create_bag(drive, output, BagOptions(gnss="none"))
    assert list(output.parent.iterdir()) == []


def test_an_existing_bag_is_refused_and_kept(bag, drive):
    before = sorted(path.stat().st_mtime_ns for path in bag.iterdir())
    with pytest.raises(BagError, match="exists already"):
        create_bag(drive, bag, BagOptions(gnss="none"))
    assert sorted(path.stat().st_mtime_ns for path in bag.iterdir()) == before


def test_a_place_that_cannot_be_written_to_is_told(drive, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BagError, match="cannot write bag"):
        create_bag(drive, tmp_path / "file" / "bag", BagOptions(gnss="none"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (BagOptions(), "--datum"),
        (BagOptions(gnss="none", scale=2.0), "--scale 2.0"),
        (BagOptions(gnss="none", every=5, exclude_every=1), "no image of 12 is left"),
        (BagOptions(gnss="none", degrade="snow"), "unknown degradation 'snow'"),
        (BagOptions(gnss="none", storage="zip"), "storage 'zip'"),
    ],
)
def test_options_that_cannot_be(options, complaint, drive, tmp_path):
    with pytest.raises((BagError, ConfigError, DataError), match=complaint):
        create_bag(drive, tmp_path / "bag", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"T_world_cam": [0.0] * 12}, "image 1 .* not orthonormal"),
        ({"T_world_cam": [1.0] * 5}, "12 or 16 numbers, got 5"),
        ({"K": [0.0, 80.0, 47.0, 32.0]}, "image 1 .* focal length"),
        ({"K": [80.0]}, "image 1"),
        ({"file": "absent.png"}, r"absent\.png does not exist"),
        ({"t": 0.0}, "same time"),
        ({"t": float("nan")}, "not finite"),
    ],
)
def test_meta_files_that_are_wrong(change, complaint, tmp_path):
    meta = write_drive(tmp_path, count=3)
    content = json.loads(meta.read_text())
    content["images"][1].update(change)
    meta.write_text(json.dumps(content))
    with pytest.raises(DataError, match=complaint):
        read_drive(meta)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": []}', '{"images": [3]}', "\x00"])
def test_meta_files_that_are_something_else(text, tmp_path):
    meta = write_drive(tmp_path, count=1)
    meta.write_text(text)
    with pytest.raises(DataError, match=r"meta\.json"):
        read_drive(meta)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_bag(meta, tmp_path):
    arguments = ["create", "--images", str(meta.parent / "images"), "--meta", str(meta)]
    arguments += ["--output", str(tmp_path / "bag"), "--datum", "49.0,8.4,110,0", "--every", "2"]
    arguments += ["--topic", "image=/front/image", "--raw", "--storage", "sqlite3"]
    result = CliRunner().invoke(bag_command.app, arguments)
    assert result.exit_code == 0, result.output
    assert "/front/image" in result.output
    assert len(of(ImageEvent, read(tmp_path / "bag")[0])) == 6
