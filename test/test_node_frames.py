"""Frames of the live node: poses stated in any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import up_to_frame, without

from pixloc_ros.geometry import se3
from pixloc_ros.replay import decode

CLICK = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, 0.0685])
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
    image = bag.on("/image")[0]
    stamp_ns = decode.stamp_ns(image.header)
    for frame in ("moon", "odom"):  # nothing has joined the odometry to the map yet
        click(rig, truth.T_map_base[0], stamp_ns, frame)
    refused = rig.report()["count initialpose.bad.frame"]
    assert refused.startswith("2: the pose is in frame 'odom', which /tf does not join to 'map'")
    assert rig.look(image).reason == "no_prior"
    click(rig, T_EARTH_MAP @ truth.T_map_base[0], stamp_ns, "earth")
    rest = messages[len(up_to_frame(messages, 0)) + 1 :]
    first = rig.play(rest[: len(up_to_frame(rest, 1))])[-1]
    assert (first.reason, first.prior_source) == ("ok", "initialpose"), first.message
    assert first.prior_offset_m < 0.5
    rig.until(lambda: rig.transforms and rig.poses, "map to odom")
    newest = rest[: len(up_to_frame(rest, 1))]
    odometry = [message for topic, message in newest if topic == "/odom"][-1]
    odom_ns = decode.stamp_ns(odometry.header)
    click(rig, decode.pose(odometry.pose.pose), odom_ns, "odom")
    second = rig.play(rest[len(newest) : len(up_to_frame(rest, 2))])[-1]
    assert (second.reason, second.prior_source) == ("ok", "initialpose"), second.message
    assert second.prior_offset_m < 0.3
