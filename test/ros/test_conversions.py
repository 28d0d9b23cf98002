"""Messages of rclpy to arrays and back, with the same result as those of bags."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

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


class Bridge:
    """As CvBridge of Jazzy, in one respect: it knows 4:2:2 images by their older names only."""

    asked: ClassVar[list[str]] = []

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str) -> np.ndarray:
        assert desired_encoding == "passthrough"
        assert message.encoding not in ("uyvy", "yuyv")
        self.asked.append(message.encoding)
        return decoding.unpack(message)


class WrongBridge(Bridge):
    """As one that was built against another numpy: it answers, and is wrong."""

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str) -> np.ndarray:
        return np.zeros_like(decoding.unpack(message))


@pytest.fixture
def optional_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with nothing tried yet."""
    module = importlib.import_module("pixloc_ros.ros.optional_packages")
    module.cv_bridge_knows.cache_clear()
    yield module
    module.cv_bridge_knows.cache_clear()


@pytest.mark.parametrize("encoding", list(decoding.ENCODINGS))
@pytest.mark.parametrize("bridge", [Bridge, WrongBridge])
def test_every_encoding_decodes_alike_with_any_cv_bridge(
    optional_packages: Any, monkeypatch: pytest.MonkeyPatch, bridge: type[Bridge], encoding: str
) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=bridge))
    monkeypatch.setattr(bridge, "asked", [])
    step = 4 * decoding.ENCODINGS[encoding]
    data = np.random.default_rng(0).integers(0, 256, 6 * step, np.uint8)
    message = SimpleNamespace(
        height=6, width=4, encoding=encoding, is_bigendian=False, step=step, data=data
    )
    image = decoding.image_rgb(message, unpack=optional_packages.unpack)
    np.testing.assert_array_equal(image, decoding.image_rgb(message))
    known_as = optional_packages.CV_BRIDGE_NAMES.get(encoding, encoding)
    assert bridge.asked == ([known_as, known_as] if bridge is Bridge else [])  # tried, then used


def test_images_decode_where_there_is_no_cv_bridge(
    optional_packages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # importing it fails
    message = picture(RGB, "rgb8")
    np.testing.assert_array_equal(decoding.image_rgb(message, unpack=optional_packages.unpack), RGB)
