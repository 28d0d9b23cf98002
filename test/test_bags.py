"""Bags: what is written is read again, and what is broken is used as far as it goes."""

import contextlib
import json
import shutil
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pymap3d
import pytest
from drives import HEIGHT, WIDTH, curve_pose, read_drive, write_drive, write_messages
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pixloc_ros.cli import bag as bag_command
from pixloc_ros.errors import BagError, ConfigError, DataError
from pixloc_ros.evaluation.trajectory import read_tum
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Datum
from pixloc_ros.replay import messages, sensors
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import create_bag, truth_path
from pixloc_ros.replay.events import (
    CameraInfoEvent,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RejectedEvent,
    StaticTransformEvent,
)
from pixloc_ros.replay.static_transforms import StaticTransforms
from pixloc_ros.replay.topics import Topics

DATUM = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=30.0)
START_NS = 1_700_000_000_000_000_000


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


def read(path, topics=None):
    with BagReader(path, topics) as reader:
        return list(reader), reader


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# --- writing and reading again --------------------------------------------------------------------


def test_everything_written_is_read_again(bag, drive):
    events, reader = read(bag)
    images = of(ImageEvent, events)
    assert reader.truncated is None
    assert not of(RejectedEvent, events)
    assert [image.stamp_ns for image in images] == drive.stamps_ns.tolist()
    pixels = cv2.imread(str(drive.files[7]))[..., ::-1]
    np.testing.assert_array_equal(images[7].image_rgb, pixels)
    camera = of(CameraInfoEvent, events)[0].camera
    np.testing.assert_allclose(camera.K(), drive.cameras[0].K())
    extrinsic = of(StaticTransformEvent, events)[0]
    assert (extrinsic.parent, extrinsic.child) == ("base_link", images[0].frame_id)
    np.testing.assert_allclose(extrinsic.T_parent_child, drive.T_base_cam, atol=1e-12)


def test_truth_is_the_pose_of_the_vehicle_at_the_frames(bag, drive):
    truth = read_tum(truth_path(bag))
    assert truth.stamps_ns.tolist() == drive.stamps_ns.tolist()
    T_map_cam = truth.T_map_base @ drive.T_base_cam
    np.testing.assert_allclose(T_map_cam, [curve_pose(i) for i in range(12)], atol=1e-6)


def test_events_come_in_the_order_of_time_with_odometry_before_its_image(bag):
    events, _ = read(bag)
    stamped = [event for event in events if not isinstance(event, StaticTransformEvent)]
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
    truth = sensors.TimedPoses(drive.stamps_ns, drive.T_map_base)
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
            np.hypot(x - there[0, 3], y - there[1, 3]) < 1.0 + 4 * sensors.UBLOX.horizontal_sigma_m
        )
        assert fix.covariance_enu is not None


def test_pose_fixes_and_initial_pose(drive, tmp_path):
    create_bag(drive, tmp_path / "bag", BagOptions(gnss="pose", initial_pose=True))
    poses = of(PoseEvent, read(tmp_path / "bag")[0])
    assert Counter(pose.source for pose in poses) == {"gnss": 12, "initialpose": 1}
    first = next(pose for pose in poses if pose.source == "initialpose")
    assert se3.distance_m(first.T_map_base, drive.T_map_base[0]) < 3.0
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
    a, b, c = (of(OdometryEvent, read(tmp_path / name)[0])[-1].T_odom_base for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-6
    images = [of(ImageEvent, read(tmp_path / name)[0])[3].image_rgb for name in "ab"]
    np.testing.assert_array_equal(*images)


# --- sensor models --------------------------------------------------------------------------------


def straight_drive(seconds: float, speed_mps: float) -> sensors.TimedPoses:
    count = round(10 * seconds) + 1
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3] = np.arange(count) * speed_mps / 10
    return sensors.TimedPoses(START_NS + np.arange(count) * 100_000_000, T)


@pytest.mark.parametrize("rate_hz", [10.0, 100.0])
def test_odometry_drifts_as_measured_at_any_rate(rate_hz):
    path, rng = straight_drive(60, 16.0), np.random.default_rng(0)
    model = sensors.OdometryModel(rate_hz=rate_hz)
    ends = []
    for _ in range(40):
        drift = sensors.simulate_odometry(path, model, rng)
        assert np.array_equal(drift.T_target_base[0], np.eye(4))
        ends.append(drift.T_target_base[-1])
    lengths = np.array([end[0, 3] for end in ends])
    headings_deg = np.rad2deg([np.arctan2(end[1, 0], end[0, 0]) for end in ends])
    assert lengths.mean() / 960.0 - 1 == pytest.approx(-0.009, abs=0.0005)
    # 600 averages over 0.1 s with 0.06 m/s: 0.006 m * sqrt(600) = 0.147 m.
    assert lengths.std() == pytest.approx(0.147, rel=0.35)
    assert headings_deg.std() == pytest.approx(0.01 * np.sqrt(600), rel=0.35)


def test_wheels_at_rest_report_no_motion():
    drift = sensors.simulate_odometry(
        straight_drive(10, 0.0), sensors.OdometryModel(), np.random.default_rng(0)
    )
    assert np.abs(drift.T_target_base[:, :3, 3]).max() < 1e-12


def test_gnss_errs_as_measured():
    path, rng = straight_drive(120, 13.5), np.random.default_rng(0)
    as_stamped, without_latency, up = [], [], []
    for _ in range(30):
        stamps_ns, positions = sensors.simulate_gnss(path, sensors.UBLOX, rng)
        stamps_ns, positions = stamps_ns[2:], positions[2:]
        for out, latency_ns in ((as_stamped, 0), (without_latency, 100_000_000)):
            error = positions - path.at(stamps_ns - latency_ns)[:, :3, 3]
            out.append(np.linalg.norm(error[:, :2], axis=1).mean())
        up.append(error[:, 2].mean())
    assert np.mean(without_latency) == pytest.approx(0.54, abs=0.06)
    assert np.mean(as_stamped) == pytest.approx(1.45, abs=0.15)
    assert np.mean(up) == pytest.approx(1.1, abs=0.2)


def test_the_error_of_gnss_wanders_slowly():
    path = straight_drive(120, 0.0)
    _, positions = sensors.simulate_gnss(path, sensors.UBLOX, np.random.default_rng(1))
    steps = np.linalg.norm(np.diff(positions[:, :2], axis=0), axis=1)
    assert steps.mean() < 0.1


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


# --- reading other people's bags ------------------------------------------------------------------


def frame_messages(image_topic="/image", info_topic="/camera_info", stamp_ns=START_NS):
    camera = read_camera()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return [
        (stamp_ns, info_topic, messages.camera_info(stamp_ns, "cam", camera)),
        (stamp_ns, image_topic, messages.image(stamp_ns, "cam", pixels)),
    ]


def read_camera():
    from pixloc_ros.geometry.camera import Camera

    return Camera.create("PINHOLE", [WIDTH, HEIGHT], [80.0, 80.0], [47.5, 31.5])


def test_the_only_topic_of_a_type_is_taken(tmp_path):
    timed = frame_messages("/front/image_raw", "/front/camera_info")
    events, reader = read(write_messages(tmp_path / "bag", timed))
    assert reader.parts == {"image": "/front/image_raw", "camera_info": "/front/camera_info"}
    assert len(of(ImageEvent, events)) == 1


def test_of_two_topics_one_must_be_named(tmp_path):
    timed = frame_messages("/left/image", "/left/info") + frame_messages("/right/image", "/r/info")
    path = write_messages(tmp_path / "bag", timed)
    with pytest.raises(BagError, match=r"--topic image=.*/left/image \(sensor_msgs/msg/Image\)"):
        read(path)
    chosen = Topics().remapped(["image=/right/image", "camera_info=r/info"])
    assert len(of(ImageEvent, read(path, chosen)[0])) == 1


def test_a_named_topic_is_not_replaced_by_another(tmp_path):
    path = write_messages(tmp_path / "bag", frame_messages())
    with pytest.raises(BagError, match="'/odometry' \\(odom\\)"):
        read(path, Topics().remapped(["odom=/odometry"]))


@pytest.mark.parametrize("text", ["image", "image=", "picture=/image", "chosen=/x"])
def test_topic_assignments_that_cannot_be(text):
    with pytest.raises(ConfigError, match="part=/topic"):
        Topics().remapped([text])


def test_messages_of_other_types_are_passed_over(tmp_path):
    store = messages.typestore()
    other = store.types["std_msgs/msg/String"](data="hello")
    timed = [*frame_messages(), (START_NS, "/chatter", other)]
    events, _ = read(write_messages(tmp_path / "bag", timed))
    assert len(events) == 2


def bad_messages():
    stamp, camera = START_NS, read_camera()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def image(**changes):
        return "image", "/image", replace(messages.image(stamp, "cam", pixels), **changes)

    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    info = messages.camera_info(stamp, "cam", camera)
    T = np.eye(4)
    odometry = messages.odometry(stamp, "odom", "base_link", T)
    odometry.pose.pose.position.x = float("nan")
    unturned = messages.pose_with_covariance(stamp, "map", T, np.eye(6))
    unturned.pose.pose.orientation.w = 0.0
    return {
        "step": image(step=7),
        "short": image(data=np.zeros(100, np.uint8)),
        "encoding": image(encoding="rgb7"),
        "no pixels": image(width=0, step=0, data=np.zeros(0, np.uint8)),
        "no stamp": ("image", "/image", messages.image(0, "cam", pixels)),
        "cut jpeg": (
            "image",
            "/image/compressed",
            messages.compressed_image(stamp, "cam", jpeg[:-40]),
        ),
        "no jpeg": ("image", "/image/compressed", messages.compressed_image(stamp, "cam", b"text")),
        "empty jpeg": ("image", "/image/compressed", messages.compressed_image(stamp, "cam", b"")),
        "focal": ("camera_info", "/camera_info", replace(info, k=np.zeros(9))),
        "model": (
            "camera_info",
            "/camera_info",
            replace(info, distortion_model="fancy", d=np.ones(5)),
        ),
        "nan odometry": ("odom", "/odom", odometry),
        "zero quaternion": ("initialpose", "/initialpose", unturned),
    }


@pytest.mark.parametrize("name", bad_messages())
def test_bad_messages_are_told_and_the_next_ones_are_read(name, tmp_path):
    part, topic, bad = bad_messages()[name]
    timed = [(START_NS, topic, bad), *frame_messages(stamp_ns=START_NS + 1)]
    if topic == "/image/compressed":
        jpeg = cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
        timed[2] = (START_NS + 1, topic, messages.compressed_image(START_NS + 1, "cam", jpeg))
    events, _ = read(write_messages(tmp_path / "bag", timed))
    rejected, *others = events
    assert isinstance(rejected, RejectedEvent)
    assert rejected.part == part
    assert rejected.reason.startswith(part)
    assert "\n" not in rejected.message
    assert [type(event) for event in others] == [CameraInfoEvent, ImageEvent]


# --- bags that are cut off or damaged -------------------------------------------------------------


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def long_bag(request, tmp_path_factory):
    """Some chunks of mcap, and some levels of sqlite's tree."""
    folder = tmp_path_factory.mktemp(f"long_{request.param}")
    drive = read_drive(write_drive(folder / "drive", count=150))
    options = BagOptions(gnss="pose", compressed=False, storage=request.param)
    create_bag(drive, folder / "bag", options)
    return folder / "bag"


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_bag_that_is_cut_off_is_used_up_to_there(share, metadata, long_bag, tmp_path):
    copy = shutil.copytree(long_bag, tmp_path / "bag")
    file = storage_file(copy)
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * share)])
    if not metadata:
        (copy / "metadata.yaml").unlink()
    events, reader = read(copy)
    images = of(ImageEvent, events)
    assert (share - 0.3) * 150 < len(images) < (share + 0.05) * 150
    assert of(StaticTransformEvent, events)
    assert reader.truncated is not None
    assert file.name in reader.truncated
    everything = of(ImageEvent, read(long_bag)[0])
    for image, original in zip(images, everything, strict=False):
        assert image.stamp_ns == original.stamp_ns
        np.testing.assert_array_equal(image.image_rgb, original.image_rgb)


def test_a_recording_without_metadata_is_read_whole(long_bag, tmp_path):
    copy = shutil.copytree(long_bag, tmp_path / "bag")
    (copy / "metadata.yaml").unlink()
    events, reader = read(copy)
    assert len(of(ImageEvent, events)) == reader.image_count == 150
    assert reader.truncated is None
    assert len(of(ImageEvent, read(storage_file(copy))[0])) == 150


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0, 1), hole=st.floats(0, 1), size=st.integers(0, 5000))
@example(cut=1.0, hole=0.046875, size=88)  # topics of a database without their names
def test_no_damage_makes_it_crash(bag, tmp_path_factory, cut, hole, size):
    data = bytearray(storage_file(bag).read_bytes())
    begin = round(hole * len(data))
    data[begin : begin + size] = bytes(len(data[begin : begin + size]))
    copy = shutil.copytree(bag, tmp_path_factory.mktemp("damaged") / "bag")
    storage_file(copy).write_bytes(data[: round(cut * len(data))])
    with contextlib.suppress(BagError):
        events, reader = read(copy)
        assert len(of(ImageEvent, events)) <= 12
        assert reader.truncated or cut > 0.9


@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_what_is_no_bag(content, tmp_path):
    path = tmp_path / "bag"
    if content is not None:
        path.mkdir()
        (path / "bag_0.mcap").write_bytes(content)
    with pytest.raises(BagError, match="bag"):
        BagReader(path)
    for name in ("old.bag", "notes.txt"):
        (tmp_path / name).write_text("x")
        with pytest.raises(BagError):
            BagReader(tmp_path / name)


# --- static transforms ----------------------------------------------------------------------------


def test_transforms_chain_in_both_directions():
    T_base_mast = se3.make(np.eye(3), [1.0, 0, 2])
    T_mast_cam = se3.base_from_optical()
    transforms = StaticTransforms()
    transforms.add("base_link", "mast", T_base_mast)
    transforms.add("/mast", "cam", T_mast_cam)
    np.testing.assert_allclose(transforms.lookup("base_link", "cam"), T_base_mast @ T_mast_cam)
    np.testing.assert_allclose(
        transforms.lookup("cam", "base_link"), se3.inverse(T_base_mast @ T_mast_cam), atol=1e-15
    )
    assert transforms.lookup("base_link", "lidar") is None
    np.testing.assert_array_equal(transforms.lookup("lidar", "lidar"), np.eye(4))


def test_transforms_that_are_none_are_refused():
    transforms = StaticTransforms()
    assert not transforms.add("a", "b", np.full((4, 4), np.nan))
    assert not transforms.add("a", "a", np.eye(4))
    assert not transforms.add("", "b", np.eye(4))
    assert transforms.frames == ()


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_bag(meta, tmp_path):
    arguments = ["create", "--images", str(meta.parent / "images"), "--meta", str(meta)]
    arguments += ["--output", str(tmp_path / "bag"), "--datum", "49.0,8.4,110,0", "--every", "2"]
    arguments += ["--topic", "image=/front/image", "--raw", "--storage", "sqlite3"]
    result = CliRunner().invoke(bag_command.app, arguments)
    assert result.exit_code == 0, result.output
    assert "/front/image" in result.output
    assert len(of(ImageEvent, read(tmp_path / "bag")[0])) == 6
