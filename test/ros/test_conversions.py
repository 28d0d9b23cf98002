"""Messages of rclpy to arrays and back, with the same result as those of bags."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.pictures import GREY, RGB, picture
from pixloc_ros.geometry import se3
from pixloc_ros.sensors import decoding

T = se3.make(Rotation.from_euler("xyz", [10, -20, 150], degrees=True).as_matrix(), [1.0, 2.0, 3.0])


def as_ros(message: SimpleNamespace) -> Any:
    """The same as a message of rclpy."""
    from sensor_msgs.msg import Image

    return Image(**{**vars(message), "data": bytes(message.data)})


@pytest.mark.ros
@pytest.mark.parametrize(
    ("array", "encoding"),
    [(RGB, "rgb8"), (GREY, "mono8"), (GREY.astype(np.uint16) * 200, "mono16")],
)
def test_messages_of_rclpy_decode_as_those_of_bags(array: np.ndarray, encoding: str) -> None:
    message = picture(array, encoding, padding=2)
    image = decoding.image_rgb(as_ros(message))
    np.testing.assert_array_equal(image, decoding.image_rgb(message))
    image[:] = 0  # our own copy, not the message's memory


@pytest.mark.ros
def test_poses_keep_the_order_of_ros_on_the_way_out_and_back() -> None:
    from pixloc_ros.ros import conversions

    covariance = np.arange(36.0).reshape(6, 6)
    covariance = covariance @ covariance.T
    message = conversions.pose_message(T, covariance, 1_700_000_000_123_456_789, "map")
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    assert message.header.frame_id == "map"
    np.testing.assert_allclose(decoding.pose(message.pose.pose), T, atol=1e-12)
    np.testing.assert_array_equal(decoding.pose_covariance(message.pose), covariance)
    transform = conversions.transform_message(T, 5, "map", "odom")
    np.testing.assert_allclose(decoding.pose(transform.transform), T, atol=1e-12)
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")


@pytest.mark.ros
def test_half_turns_have_a_quaternion() -> None:
    from pixloc_ros.ros import conversions

    for axis in np.eye(3):
        turn = se3.make(Rotation.from_rotvec(np.pi * axis).as_matrix(), np.zeros(3))
        message = conversions.pose_message(turn, np.eye(6), 0, "map")
        np.testing.assert_allclose(decoding.pose(message.pose.pose), turn, atol=1e-12)
