"""Frames and names of the live node: poses stated in any frame, and two vehicles side by side."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.messages import changed, up_to_frame, without
from helpers.node_checks import errors
from pixloc_ros.geometry import se3
from pixloc_ros.sensors import decoding

CLICK = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, 0.0685])
CROP_PX = 30
T_EARTH_MAP = se3.from_quat_xyzw([0.0, 0.0, 0.6, 0.8], [4_000_000.0, 700_000.0, 300.0])


def click(rig: Any, T_frame_base: np.ndarray, stamp_ns: int, frame: str) -> None:
    from pixloc_ros.ros import conversions

    rig.send("/initialpose", conversions.pose_message(T_frame_base, CLICK, stamp_ns, frame))
    rig.until(rig.arrived, "the click")


@pytest.mark.ros
@pytest.mark.slow
def test_poses_are_taken_in_every_frame_that_tf_joins_to_the_map(
    rig: Any, bag: Any, truth: Any
) -> None:
    from tf2_msgs.msg import TFMessage

    from pixloc_ros.ros import conversions

    messages = without(bag, "/gnss/fix")
    earth = conversions.transform_message(T_EARTH_MAP, 1, "earth", "map")
    rig.play(up_to_frame(messages, 0))
    rig.send("/tf_static", TFMessage(transforms=[earth]))
    rig.until(rig.arrived, "the calibration")
    stamp_ns = decoding.stamp_ns(bag.on("/image")[0].header)
    for frame in ("moon", "odom"):  # nothing has joined the odometry to the map yet
        click(rig, truth.T_map_base[0], stamp_ns, frame)
    refused = rig.report()["count initialpose.bad.frame"]
    assert refused.startswith("2: the pose is in frame 'odom', which /tf does not join to 'map'")
    click(rig, T_EARTH_MAP @ truth.T_map_base[0], stamp_ns, "earth")
    rest = messages[len(up_to_frame(messages, 0)) + 1 :]
    first = rig.play(rest[: len(up_to_frame(rest, 1))])[-1]
    assert (first.reason, first.prior_source) == ("ok", "initialpose"), first.message
    assert first.prior_offset_m < 0.5
    rig.until(lambda: rig.transforms and rig.poses, "map to odom")
    newest = rest[: len(up_to_frame(rest, 1))]
    odometry = [message for topic, message in newest if topic == "/odom"][-1]
    odom_ns = decoding.stamp_ns(odometry.header)
    click(rig, decoding.pose(odometry.pose.pose), odom_ns, "odom")
    second = rig.play(rest[len(newest) : len(up_to_frame(rest, 2))])[-1]
    assert (second.reason, second.prior_source) == ("ok", "initialpose"), second.message
    assert second.prior_offset_m < 0.3


def of_another_vehicle(topic: str, message: Any) -> tuple[str, Any]:
    """The same drive seen by a narrower, compressed camera of another name; odometry on /tf."""
    from sensor_msgs.msg import CompressedImage
    from tf2_msgs.msg import TFMessage

    from pixloc_ros.ros import conversions

    name = {"header.frame_id": "eye"}
    if topic == "/image":
        cropped_bgr = decoding.image_rgb(message)[:, CROP_PX:-CROP_PX, ::-1]
        jpeg = cv2.imencode(".jpg", cropped_bgr)[1].tobytes()
        header = changed(message, **name).header
        return topic, CompressedImage(header=header, format="jpeg", data=jpeg)
    if topic == "/camera_info":
        k = np.array(message.k) - np.eye(9)[2] * CROP_PX
        return topic, changed(message, k=k, width=message.width - 2 * CROP_PX, **name)
    if topic == "/odom":
        T_odom_base, stamp_ns = decoding.pose(message.pose.pose), decoding.stamp_ns(message.header)
        frames = message.header.frame_id, message.child_frame_id
        transform = conversions.transform_message(T_odom_base, stamp_ns, *frames)
        return "/tf", TFMessage(transforms=[transform])
    if topic == "/tf_static":
        (transform,) = message.transforms
        return topic, TFMessage(transforms=[changed(transform, child_frame_id="eye")])
    return topic, message


@pytest.mark.ros
@pytest.mark.slow
def test_two_vehicles_in_one_domain_do_not_hear_each_other(
    street: Path, bag: Any, truth: Any, tmp_path: Path, domain: int
) -> None:
    from helpers.live import Rig, running_node

    common = {"map": street / "map", "threads": 1, "node.diagnostics_rate_hz": 10.0}
    other = {"node.odom_source": "tf", "node.map_frame": "hall"}
    with ExitStack() as stack:
        for space, extra in (("/left", {}), ("/right", other)):
            log = tmp_path / f"{space[1:]}.txt"
            stack.enter_context(running_node(log, domain, space, **common, **extra))
        left = stack.enter_context(Rig(domain, "/left"))
        right = stack.enter_context(Rig(domain, "/right", compressed=True, tf_odometry=True))
        for rig in (left, right):
            rig.until(rig.connected, "the node's subscriptions")
        messages = without(bag)
        second, third, sixth = (len(up_to_frame(messages, count)) for count in (2, 3, 6))
        first = [m for m in messages[:second] if m[0] in ("/tf_static", "/gnss/fix")]
        later = [of_another_vehicle(*m) for m in (*first, *messages[second + 1 : sixth])]
        verdicts = {"map": left.play(messages[:third]), "hall": right.play(later)}
        for rig, (frame, found) in zip((left, right), verdicts.items(), strict=True):
            assert [v.reason for v in found] == ["ok"] * 3, found[0].message
            rig.until(lambda rig=rig: len(rig.poses) == 3 and rig.transforms, "poses")
            assert errors(found, rig.poses, truth)[:, 0].max() < 0.25
            assert {p.header.frame_id for p in rig.poses} == {frame}
            sent = {(t.header.frame_id, t.child_frame_id) for t in rig.transforms}
            assert sent - {("odom", "base_link")} == {(frame, "odom")}
            report = rig.report()
            received, repeated = (
                int(report.get(f"count image.{key}", 0)) for key in ("received", "repeated")
            )
            assert received - repeated == 3
            assert report["other publisher of the transform"] == "none"
        assert {v.prior_source for v in verdicts["hall"][1:]} == {"odometry"}
        assert int(right.report()["count odom_tf.received"]) > 3
        topics = {name for name, _ in left.node.get_topic_names_and_types()}
        assert not {t for t in topics if t.startswith(("/pixloc_localizer", "/image", "/tf"))}
