"""Bags that others wrote, and bags that are cut off or damaged: used as far as they go."""

import contextlib
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import Writer as McapWriter

from helpers.drives import (
    HEIGHT,
    START_NS,
    WIDTH,
    of,
    read,
    read_drive,
    write_drive,
    write_messages,
)
from pixloc_ros.config import NodeConfig, from_flat
from pixloc_ros.errors import BagError, ConfigError, DataError
from pixloc_ros.maps.datum import Datum
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import create_bag
from pixloc_ros.replay.calibration_file import calibration_yaml
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    ImageEvent,
    RefusedMessage,
    StaticTransformsEvent,
)
from pixloc_ros.sensors.topics import Topics


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


def images_alone(folder, *names):
    """A bag without any CameraInfo, and the file of its calibration."""
    timed = [m for name in names for m in frame_messages(f"{name}/image", stamp_ns=START_NS + 5)]
    bag = write_messages(folder / "bag", [m for m in timed if m[1].endswith("image")])
    (folder / "front.yaml").write_text(calibration_yaml(read_camera(), "front"))
    return bag, str(folder / "front.yaml")


def test_a_calibration_file_stands_in_for_camera_info(tmp_path):
    bag, file = images_alone(tmp_path, "")
    with pytest.raises(BagError, match=r"give a calibration file with --topic camera_info=camera"):
        read(bag)
    events, _ = read(bag, Topics().remapped([f"camera_info={file}"]))
    calibration, image = events
    assert isinstance(calibration, CameraInfoEvent) and isinstance(image, ImageEvent)
    assert (calibration.stamp_ns, calibration.frame_id) == (image.stamp_ns, image.frame_id)
    assert np.array_equal(calibration.camera.K(), read_camera().K())


def test_calibration_files_of_a_rig(tmp_path):
    bag, file = images_alone(tmp_path, "/left", "/right")
    other = shutil.copy(file, tmp_path / "right.yaml")
    topics = Topics().remapped([f"left/camera_info={file}", f"right/camera_info={other}"])
    with BagReader(bag, topics, ("left", "right")) as reader:
        assert reader.calibrations().keys() == {"left", "right"}
    shared = Topics().remapped([f"{side}/camera_info={file}" for side in ("left", "right")])
    with pytest.raises(ConfigError, match=r"two cameras .* have the same topic .*front\.yaml"):
        BagReader(bag, shared, ("left", "right"))


def test_the_configured_calibration_files_are_read_too(tmp_path):
    bag, file = images_alone(tmp_path, "")
    alone = NodeConfig(camera_info_url=f"file://{file}")
    with BagReader.configured(bag, alone, None) as reader:
        assert reader.calibrations()[""].frame_id == "cam"
    with pytest.raises(BagError, match="'/named'"):
        BagReader.configured(bag, alone, Topics().remapped(["camera_info=/named"]))


def test_a_configured_file_is_found_for_each_camera_of_a_rig(tmp_path):
    bag, file = images_alone(tmp_path, "/left", "/right")
    shutil.copy(file, tmp_path / "left.yaml")
    other = str(shutil.copy(file, tmp_path / "elsewhere.yaml"))
    rig = NodeConfig(cameras="left,right", camera_info_url=str(tmp_path / "${NAME}.yaml"))
    named = Topics().remapped([f"right/camera_info={other}"])
    with BagReader.configured(bag, rig, named) as reader:
        assert reader.topics_of("camera_info") == [str(tmp_path / "left.yaml"), other]
        assert reader.calibrations().keys() == {"left", "right"}


def test_a_calibration_file_that_cannot_be_used_is_named(tmp_path):
    bag, _ = images_alone(tmp_path, "")
    for name, content in (("missing.yaml", None), ("front.yaml", "image_width: 0")):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            read(bag, Topics().remapped([f"camera_info={tmp_path / name}"]))


def two_cameras():
    left = frame_messages("/car/left/image_raw", "/car/left/camera_info")
    return left + frame_messages("/car/right/image_raw", "/car/right/camera_info")


def test_the_calibration_beside_the_named_images_is_taken(tmp_path):
    path = write_messages(tmp_path / "bag", two_cameras())
    _, reader = read(path, Topics().remapped(["image=/car/right/image_raw"]))
    assert reader.parts["camera_info"] == "/car/right/camera_info"


def test_the_calibration_beside_compressed_images_is_taken(tmp_path):
    stamp, pixels = START_NS, np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image = messages.jpeg_image(stamp, "cam", pixels)
    timed = [*two_cameras()[0::2], (stamp, "/car/left/image_raw/compressed", image)]
    path = write_messages(tmp_path / "bag", timed)
    _, reader = read(path, Topics().remapped(["image=/car/left/image_raw/compressed"]))
    assert reader.parts["camera_info"] == "/car/left/camera_info"


def test_the_cameras_of_a_rig_may_have_any_topics(tmp_path):
    path = write_messages(tmp_path / "bag", two_cameras())
    named = ["front/image=/car/left/image_raw", "back/image=/car/right/image_raw"]
    with BagReader(path, Topics().remapped(named), ("front", "back")) as reader:
        assert reader.topics_of("image") == ["/car/left/image_raw", "/car/right/image_raw"]
        assert reader.topics_of("camera_info") == [
            "/car/left/camera_info",
            "/car/right/camera_info",
        ]


def test_topics_of_a_camera_that_does_not_exist(tmp_path):
    path = write_messages(tmp_path / "bag", two_cameras())
    topics = Topics().remapped(["left/image=/car/left/image_raw"])
    with pytest.raises(ConfigError, match=r"topic 'left/image=': node\.cameras names no camera"):
        BagReader(path, topics)
    with pytest.raises(ConfigError, match=r"node\.cameras is front,back"):
        BagReader(path, topics, ("front", "back"))


def test_a_rig_of_which_no_topic_is_named_says_how(tmp_path):
    path = write_messages(tmp_path / "bag", two_cameras())
    with pytest.raises(BagError, match="--topic left/image=/name"):
        BagReader(path, cameras=("left", "right"))


def test_it_says_that_none_of_two_odometries_is_used(tmp_path):
    odometry = messages.odometry(START_NS, "odom", "base_link", np.eye(4))
    several = [(START_NS, "/wheels", odometry), (START_NS, "/filtered", odometry)]
    path = write_messages(tmp_path / "bag", [*frame_messages(), *several])
    _, reader = read(path)
    (note,) = reader.notes
    assert "odom" not in reader.parts
    assert "/filtered, /wheels" in note and "--topic odom=/name" in note
    assert read(path, Topics().remapped(["odom=/wheels"]))[1].notes == []
    (drive,) = read_drives([path], from_flat({"node.identity_extrinsics": True}))
    assert drive.notes == (note,)


def test_a_bag_without_any_calibration_says_so(tmp_path):
    path = write_messages(tmp_path / "bag", frame_messages()[1:])
    with pytest.raises(BagError, match="no topic is a sensor_msgs/msg/CameraInfo") as raised:
        read(path)
    assert "name one with" not in str(raised.value)


def test_an_mcap_of_ros_1_says_what_to_do(tmp_path):
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start("ros1")
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"uint32 height")
        channel = writer.register_channel("/image", "ros1", schema)
        writer.add_message(channel, START_NS, b"1234", START_NS)
        writer.finish()
    with pytest.raises(BagError, match=r"not those of ROS 2.*rosbags-convert --src"):
        read(path, Topics().remapped(["image=/image"]))


def test_a_bag_of_ros_1_says_what_to_do(tmp_path):
    path = tmp_path / "drive.bag"
    path.write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(BagError, match=f"rosbags-convert --src {path} --dst {tmp_path / 'drive'}"):
        read(path)


def test_a_file_that_a_split_bag_lacks_is_named(tmp_path):
    path = write_messages(tmp_path / "bag", frame_messages())
    (file,) = path.glob("*.mcap")
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    information["relative_file_paths"] = [file.name, "bag_1.mcap"]
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    events, reader = read(path)
    assert of(ImageEvent, events)
    assert reader.notes == [
        "bag_1.mcap, a file of this bag, is missing; the readable part was used"
    ]


def test_a_named_topic_is_not_replaced_by_another(tmp_path):
    path = write_messages(tmp_path / "bag", frame_messages())
    with pytest.raises(BagError, match="'/odometry' \\(odom\\)"):
        read(path, Topics().remapped(["odom=/odometry"]))


@pytest.mark.parametrize(
    "text",
    ["image", "image=", "picture=/image", "chosen=/x", "rig=/x", "left/odom=/x", "/image=/x"],
)
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
    refused, *others = events
    if isinstance(refused, ImageEvent):  # its pixels are read when it is worked on
        with pytest.raises(BadMessage, match=r"^\S.*$"):
            _ = refused.image_rgb
    else:
        assert isinstance(refused, RefusedMessage)
        assert (refused.part, bool(refused.reason)) == (part, True)
        assert "\n" not in refused.message
    assert [type(event) for event in others] == [CameraInfoEvent, ImageEvent]


# --- bags that are cut off or damaged -------------------------------------------------------------


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


def cut_off(bag, share):
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * share)])
    return file


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def long_bag(request, tmp_path_factory):
    """Some chunks of mcap, and some levels of sqlite's tree."""
    return write_long_bag(tmp_path_factory.mktemp(f"long_{request.param}"), request.param)


@pytest.fixture(scope="module")
def long_mcap(tmp_path_factory):
    return write_long_bag(tmp_path_factory.mktemp("long_mcap_only"), "mcap")


def write_long_bag(folder, storage):
    drive = read_drive(write_drive(folder / "drive", count=150))
    create_bag(drive, folder / "bag", BagOptions(gnss="pose", compressed=False, storage=storage))
    return folder / "bag"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_database_that_is_cut_off_is_refused_with_what_recovers_it(share, tmp_path):
    bag = write_long_bag(tmp_path, "sqlite3")
    file = cut_off(bag, share)
    with pytest.raises(BagError, match=rf"{file.name} .*sqlite3 {file.name} \.recover"):
        BagReader(bag)


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_mcap_that_is_cut_off_is_used_up_to_there(share, metadata, long_mcap, tmp_path):
    copy = shutil.copytree(long_mcap, tmp_path / "bag")
    file = cut_off(copy, share)
    if not metadata:
        (copy / "metadata.yaml").unlink()
    events, reader = read(copy)
    images = of(ImageEvent, events)
    assert (share - 0.3) * 150 < len(images) < (share + 0.05) * 150
    assert of(StaticTransformsEvent, events)
    assert reader.truncated is not None
    assert file.name in reader.truncated
    everything = of(ImageEvent, read(long_mcap)[0])
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


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def bag(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    datum = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=30.0)
    options = BagOptions(datum=datum, compressed=False, storage=request.param, initial_pose=True)
    create_bag(read_drive(write_drive(folder / "drive")), folder / "bag", options)
    return folder / "bag"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0, 1), hole=st.floats(0, 1), size=st.integers(0, 5000))
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
