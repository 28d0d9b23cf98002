"""Publishers and operators that mean no good, or are wrong: the node lives and says so."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.messages import changed, shifted, up_to_frame, without
from helpers.node_checks import assert_no_wrong_pose, frames, reasons, relocalize, state
from pixloc_ros.common import image_files
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.sensors import decoding

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LONG = "x" * 50_000  # what one datagram holds: larger ones may be lost


def other(info: Any, focal_share: float = 1.05) -> Any:
    k = np.array(info.k)
    k[[0, 4]] *= focal_share
    return changed(info, k=k.tolist())


@pytest.fixture
def rig_with_tf(node: Any) -> Iterator[Any]:
    """A rig that publishes on /tf as well."""
    from tf2_msgs.msg import TFMessage

    from helpers.live import fresh_rig

    process, domain = node
    with fresh_rig(domain) as rig:
        rig._publishers["/tf"] = rig.node.create_publisher(TFMessage, "/tf", 50)
        rig.until(rig.connected, "the node to hear it")
        yield rig
        assert process.poll() is None, "the node is gone"


def test_half_messages_and_noise_on_every_topic(
    rig_with_tf: Any, bag: Any, truth: Trajectory
) -> None:
    from geometry_msgs.msg import TransformStamped
    from rclpy.serialization import serialize_message
    from tf2_msgs.msg import TFMessage

    rig = rig_with_tf
    rig.play(up_to_frame(without(bag), 2))
    rng = np.random.default_rng(0)
    moving = TFMessage(transforms=[TransformStamped(child_frame_id="odom")] * 2)
    samples = {topic: bag.on(topic)[1] for topic in ("/image", "/camera_info", "/odom")}
    samples |= {"/tf": moving, "/gnss/fix": bag.on("/gnss/fix")[0]}
    samples["/initialpose"] = rig.poses[-1]
    samples["/tf_static"] = bag.on("/tf_static")[0]
    for topic, message in samples.items():
        content = serialize_message(message)
        for end in (0, 2, 4, 5, len(content) // 2, len(content) - 1):
            rig.send_raw(topic, content[:end])
        rig.send_raw(topic, content[:4] + rng.bytes(min(len(content), 500)))
        rig.send_raw(topic, content[:4] + b"\xff" * 200)
    verdicts = rig.play(frames(without(bag), 2))
    assert all(v.localized for v in verdicts[2:]), [v.message for v in verdicts]
    assert_no_wrong_pose(rig, truth)


def test_numbers_and_names_that_cannot_be(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 2))
    info, odometry, fix = (bag.on(t)[1] for t in ("/camera_info", "/odom", "/gnss/fix"))
    pose = changed(rig.poses[-1], **{"header.frame_id": "map"})
    hostile: list[tuple[str, Any, dict[str, Any]]] = [
        ("/gnss/fix", fix, {"position_covariance": [1e308] * 9}),
        ("/gnss/fix", fix, {"altitude": 1e308}),
        ("/gnss/fix", fix, {"position_covariance": [-1.0] + [0.0] * 8}),
        ("/odom", odometry, {"pose.pose.position.x": 1e160}),
        ("/odom", odometry, {"header.frame_id": LONG}),
        ("/initialpose", pose, {"pose.pose.position.x": 1e160}),
        ("/initialpose", pose, {"pose.covariance": np.eye(6, k=1).ravel().tolist()}),
        ("/initialpose", pose, {"header.frame_id": LONG}),
        ("/camera_info", info, {"d": [1e308] * 5}),
        ("/camera_info", info, {"distortion_model": LONG, "d": [0.1] * 5}),
    ]
    for topic, message, changes in hostile:
        rig.send(topic, changed(message, **changes))
        rig.until(rig.arrived, "what was sent")
    report = rig.report()
    for name in (
        "gnss_fix.bad.bad_covariance",
        "odom.bad.too_far",
        "odom.bad.frame_id",
        "initialpose.bad.too_far",
        "initialpose.bad.bad_covariance",
        "camera_info.bad.camera_info_unusable",
    ):
        assert f"count {name}" in report, (name, report)
    assert not [name for name in report if "unforeseen" in name]
    assert sum(len(value) for value in report.values()) < 100_000
    verdicts = rig.play(frames(messages, 2))
    assert all(v.localized for v in verdicts[1:]), [v.message for v in verdicts]
    assert_no_wrong_pose(rig, truth)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("rational_polynomial", [1e-9] * 5 + [0.0] * 7),
        ("rational_polynomial", [1e-9] * 8 + [0.0] * 6),
        ("equidistant", [1e-9] * 4 + [0.0]),
    ],
)
def test_layouts_of_drivers_are_read(rig: Any, bag: Any, model: str, d: list[float]) -> None:
    altered = [
        (t, changed(m, distortion_model=model, d=d) if t == "/camera_info" else m)
        for t, m in up_to_frame(without(bag), 2)
    ]
    verdicts = rig.play(altered)
    assert not {"no_camera_info", "internal_error"} & set(reasons(verdicts)), verdicts[0].message


def test_the_cause_of_a_missing_calibration_is_told(rig: Any, bag: Any) -> None:
    calibrations = [
        (t, changed(m, d=[1e308] * 5) if t == "/camera_info" else m) for t, m in without(bag)
    ]
    (verdict,) = rig.play(up_to_frame(calibrations, 1))
    assert verdict.reason == "no_camera_info"
    assert "CameraInfo: " in verdict.message and "1e+308" in verdict.message
    assert state(rig)[1] == "no_camera_info" and verdict.message in rig.state


@pytest.fixture
def compressed(node: Any, bag: Any) -> Iterator[Callable[..., Any]]:
    """Shows the node a compressed image of the bag, altered; returns its verdict."""
    from sensor_msgs.msg import CompressedImage

    from helpers.live import fresh_rig

    images = iter(bag.on("/image"))

    def show(data: bytes, **changes: Any) -> Any:
        header = next(images).header
        message = CompressedImage(header=header, format="jpeg", data=data)
        return rig.look(changed(message, **changes))

    process, domain = node
    with fresh_rig(domain, compressed=True) as rig:
        rig.play([(t, m) for t, m in up_to_frame(without(bag), 1) if t != "/image"])
        yield show
        assert process.poll() is None, "the node is gone"


def empty_jpeg(side_px: int) -> bytes:
    """A header and nothing else."""
    size = side_px.to_bytes(2, "big") * 2
    frame = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + b"\x01\x11\x00" * 3
    return b"\xff\xd8" + frame + b"\xff\xd9"


def black_png(side_px: int) -> bytes:
    """A whole picture in black and white, which decoders make 24 times as large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side_px // 8) * side_px), 9)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_small_message_that_claims_a_large_image(
    compressed: Callable[..., Any], node: Any
) -> None:
    memory_kb = peak_memory_kb(node[0].pid)
    for make, side_px in ((empty_jpeg, 32_760), (black_png, 20_000), (black_png, 20_000)):
        verdict = compressed(make(side_px))
        told = verdict.reason, f"{side_px}x{side_px}" in verdict.message
        assert told == ("bad_image", True), verdict.message
    assert peak_memory_kb(node[0].pid) - memory_kb < 300_000


def test_compressed_images_that_are_none(compressed: Callable[..., Any], bag: Any) -> None:
    image_rgb = decoding.image_rgb(bag.on("/image")[0])
    whole = image_files.encode(image_rgb)
    for data, message in (
        (whole[: len(whole) // 2], "has no end"),
        (b"no image", "not decoded"),
        (b"", "not decoded"),
        (image_files.encode(image_rgb[:-16]), "calibrated for"),
    ):
        verdict = compressed(data)
        assert (verdict.reason, message in verdict.message) == ("bad_image", True), verdict.message


def peak_memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def test_transforms_of_others_that_cannot_be(rig_with_tf: Any, bag: Any, truth: Trajectory) -> None:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    rig = rig_with_tf
    circle = [("map", "odom"), ("odom", "base_link"), ("base_link", "map"), ("a", "a"), ("", "b")]
    for tick, (topic, message) in enumerate(up_to_frame(without(bag), 4)):
        rig.play([(topic, message)])
        transforms = []
        for parent, child in circle:
            transform = TransformStamped(child_frame_id=child)
            transform.header.frame_id, transform.header.stamp.sec = parent, tick
            transform.transform.translation.x = (100.0, 1e300, math.nan)[tick % 3]
            transforms.append(transform)
        rig.send_raw("/tf", TFMessage(transforms=transforms))
    assert reasons(rig.statuses) == ["ok"] * 4, [v.message for v in rig.statuses]
    assert state(rig) == ("TRACKING", "ok")
    assert_no_wrong_pose(rig, truth)


def test_a_second_publisher_of_calibrations(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = []
    for index, (topic, message) in enumerate(without(bag)):
        messages.append((topic, message))
        if topic == "/camera_info" and index > len(up_to_frame(without(bag), 3)):
            messages.append((topic, other(message)))
    verdicts = rig.play(messages)
    assert all(v.localized for v in verdicts[:3])
    assert set(reasons(verdicts[4:])) == {"calibration_unsettled"}
    assert "two publishers" in verdicts[-1].message
    name, reason = state(rig)
    assert (name in ("COASTING", "WAITING_CAMERA_INFO"), reason) == (True, "calibration_unsettled")
    assert_no_wrong_pose(rig, truth)


def test_messages_without_a_stamp(rig: Any, bag: Any, truth: Trajectory) -> None:
    from builtin_interfaces.msg import Time

    messages = without(bag)
    rig.play(up_to_frame(messages, 2))
    for topic in ("/odom", "/gnss/fix", "/camera_info"):
        rig.send(topic, changed(bag.on(topic)[2], **{"header.stamp": Time()}))
    image = changed(bag.on("/image")[2], **{"header.stamp": Time()})
    rig.send("/image", image)
    rig.until_shown("/image", image, lambda: len(rig.statuses) >= 3, "the answer to the image")
    assert rig.statuses[-1].reason == "bad_image" and "no stamp" in rig.statuses[-1].message
    report = rig.report()
    for part in ("odom", "gnss_fix", "camera_info"):
        assert report[f"count {part}.bad.no_stamp"].startswith("1: ")
    verdicts = rig.play(frames(messages, 3))
    assert all(v.localized for v in verdicts[1:]), [v.message for v in verdicts]
    assert_no_wrong_pose(rig, truth)


def test_one_unfilled_transform_beside_good_ones(rig: Any, bag: Any) -> None:
    from geometry_msgs.msg import TransformStamped

    (static,) = bag.on("/tf_static")
    unfilled = TransformStamped(child_frame_id="lidar")
    unfilled.header.frame_id, unfilled.transform.rotation.w = "base_link", 0.0
    mixed = changed(static, transforms=[unfilled, *static.transforms])
    messages = [(t, mixed if t == "/tf_static" else m) for t, m in without(bag)]
    verdicts = rig.play(up_to_frame(messages, 2))
    assert all(v.localized for v in verdicts), [v.message for v in verdicts]
    assert "'lidar' in 'base_link'" in rig.report()["count tf_static.bad.bad_quaternion"]


def test_a_mounting_that_jumps_is_told(rig: Any, bag: Any) -> None:
    rig.play(up_to_frame(without(bag), 2))
    (static,) = bag.on("/tf_static")
    moved = changed(static)
    for transform in moved.transforms:
        transform.transform.translation.x += 1.0
    rig.send("/tf_static", moved)
    rig.until(rig.arrived, "the transforms")
    assert "has moved by 1.00 m" in rig.report()["count tf_static.changed"]


def test_a_click_by_another_clock_changes_nothing(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 4))
    click = shifted(rig.poses[-1], 1e6)
    rig.send("/initialpose", click)
    rig.until(rig.arrived, "the click")
    report = rig.report()
    assert "another clock" in report["count initialpose.bad.odd_stamp"]
    refused = relocalize(rig, click)
    rig.until(refused.done, "a refusal")
    assert (refused.result().success, refused.result().code) == (False, "bad_request")
    assert "another clock" in refused.result().message
    verdicts = rig.play(frames(messages, 4))
    assert {v.prior_source for v in verdicts} == {"odometry"}
    assert all(v.localized for v in verdicts)


def test_odometry_of_which_none_can_be_used(rig: Any, bag: Any) -> None:
    messages = [
        (t, changed(m, **{"header.frame_id": "wheel_odom"}) if t == "/odom" else m)
        for t, m in without(bag)
    ]
    verdicts = rig.play(up_to_frame(messages, 3))
    assert any(v.localized for v in verdicts), [v.message for v in verdicts]
    assert state(rig) == ("DEGRADED", "odometry_refused")
    assert "wheel_odom" in rig.state and "node.odom_frame" in rig.state


def test_an_activation_that_fails_says_why(street: Path, tmp_path: Path, domain: int) -> None:
    from helpers.live import Rig, running_node

    too_long = "x" * 300  # for the name of a topic
    parameters = {"map": street / "map", "node.cameras": f"front,{too_long}"}
    with running_node(tmp_path / "log.txt", domain, **parameters) as process, Rig(domain) as rig:
        rig.until(lambda: "cannot be activated" in rig.state, "the fault")
        assert rig.state.startswith("ERROR") and too_long in rig.state
        assert rig.lifecycle_state() == "inactive"
        assert "publishers of /front/image" not in rig.report(), "half of it listens"
        assert rig.change_state("shutdown")
        rig.until(lambda: rig.state.startswith("DISABLED: shut down"), "the state of its end")
        assert process.poll() is None


def test_requests_that_cannot_be(rig: Any) -> None:
    from pixloc_ros.srv import LoadMap, Relocalize

    for timeout_s in (math.nan, math.inf, -1.0, 1e308):
        request = Relocalize.Request(use_hint=True, timeout_s=timeout_s)
        request.hint.pose.pose.position.x = 1e160
        answer = rig.call(Relocalize, "relocalize", request)
        assert (answer.success, answer.code) == (False, "bad_request")
    for name in ("../../etc", "/etc/passwd", "\x1b[2J", LONG):
        answer = rig.call(LoadMap, "load_map", LoadMap.Request(name=name))
        assert not answer.success and answer.message.isprintable()
        assert len(answer.message) <= 1000


def test_a_last_pose_that_cannot_be_written_or_read(
    street: Path, bag: Any, truth: Trajectory, tmp_path: Path, domain: int
) -> None:
    """Its folder is a file, so every write fails as on a full disk, or one that is read-only."""
    from helpers.live import Rig, running_node

    (tmp_path / "file").write_text("no folder")
    log = tmp_path / "log.txt"
    parameters = {"map": street / "map", "node.last_pose_file": tmp_path / "file" / "pose.json"}
    parameters |= {"node.diagnostics_rate_hz": 10.0, "threads": 1}
    with running_node(log, domain, **parameters) as process, Rig(domain) as rig:
        rig.until(rig.connected, "the node")
        assert all(v.localized for v in rig.play(up_to_frame(without(bag), 3)))
        assert_no_wrong_pose(rig, truth)
        assert process.poll() is None
    said = log.read_text()
    assert "last pose not kept" in said and "Traceback" not in said
