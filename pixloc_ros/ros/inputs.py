"""Subscriptions: each callback only converts its message to an event and passes it on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, NavSatFix
from tf2_msgs.msg import TFMessage

from pixloc_ros.config import NodeConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.ros import optional_packages
from pixloc_ros.ros.diagnostics import Rate
from pixloc_ros.ros.message_basics import message_class
from pixloc_ros.sensors import conversion
from pixloc_ros.sensors.events import CameraInfoEvent, Event, ImageEvent, PoseEvent
from pixloc_ros.sensors.image_messages import ImageMessages
from pixloc_ros.sensors.topics import COMPRESSED_IMAGE, IMAGE, TRANSPORTS, TYPES, VIDEO

# Best effort, depth 1: a newer image is worth more than one that was lost.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
SENSOR = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
MOVING = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# Every packet of a video depends on those before it.
STREAM = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LOSSY_STREAM = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
JUST_NOW_S = 1.0  # at most, between a click in RViz and its arrival

# Type, topic and quality of service of each input, except images and their calibrations.
TOPICS = {
    "odom": (Odometry, "odom", SENSOR),
    "gnss_fix": (NavSatFix, "gnss/fix", SENSOR),
    "gnss_pose": (PoseWithCovarianceStamped, "gnss/pose", SENSOR),
    "initialpose": (PoseWithCovarianceStamped, "initialpose", COMMAND),
    "tf_static": (TFMessage, "/tf_static", LATCHED),
}

Push = Callable[[Event], None]


class Inputs:
    """All subscriptions of the node.

    calibrations: of the cameras without a camera_info topic.
    push: takes the events, in the executor's thread. watch: takes all messages of /tf, undecoded.
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        calibrations: Mapping[str, Camera],
        push: Push,
        watch: Callable[[bytes], None],
    ) -> None:
        self._node = node
        self._cameras = {
            name: CameraInput(node, name, config.compressed, push, calibrations.get(name))
            for name in config.camera_names
        }
        self._subscriptions = [
            node.create_subscription(kind, topic, self._taking(part, push), qos)
            for part, (kind, topic, qos) in TOPICS.items()
            if part != "odom" or config.odom_source == "topic"
        ]
        # Undecoded: /tf is busy, and the session seldom needs it.
        take_raw = partial(_take_raw, push, watch)
        self._subscriptions.append(
            node.create_subscription(TFMessage, "/tf", take_raw, MOVING, raw=True)
        )

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for camera in self._cameras.values():
            camera.close()

    def change_to_published(self) -> None:
        """Switch each camera without a raw image publisher to compressed images or video."""
        for camera in self._cameras.values():
            camera.change_to_published()

    @property
    def image_rates(self) -> dict[str, Rate]:
        """Rate of the images, by camera."""
        return {name: camera.images for name, camera in self._cameras.items()}

    @property
    def last_image_s(self) -> float | None:
        """Time when the last image of any camera arrived (time.perf_counter())."""
        times = [rate.last_s for rate in self.image_rates.values() if rate.last_s is not None]
        return max(times, default=None)

    def _taking(self, part: str, push: Push) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            event = conversion.event_of(part, message, now_ns(self._node))
            if isinstance(event, PoseEvent):
                off_s = abs(event.stamp_ns - time.time_ns()) * 1e-9
                event = replace(event, sent_just_now=off_s < JUST_NOW_S)
            push(event)

        return take


class CameraInput:
    """Subscribes to images and calibration of one camera, on topics below its name.

    calibration: takes the place of the topic camera_info.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        compressed: bool,
        push: Push,
        calibration: Camera | None = None,
    ) -> None:
        self.images = Rate()
        self._node, self._name, self._compressed, self._push = node, name, compressed, push
        self._messages = ImageMessages(name, optional_packages.unpack)
        self._info = None
        if calibration is None:
            self._info = node.create_subscription(
                CameraInfo, self._topic("camera_info"), self._take_calibration, SENSOR
            )
        else:
            push(CameraInfoEvent(now_ns(node), calibration, frame_id="", camera_name=name))
        kind, end = (COMPRESSED_IMAGE, "/compressed") if compressed else (IMAGE, "")
        self._taken = kind, self._image_topic(end)
        self._pictures = self._subscribe(NEWEST)

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._pictures)
        if self._info is not None:
            self._node.destroy_subscription(self._info)

    def change_to_published(self) -> None:
        """Switch to compressed images or video if only those are published."""
        if self._compressed or self.images.last_s is not None:
            return
        published = self._published()
        if published is None or published == self._taken:
            return
        self._taken = published
        kind, name = published
        try:
            subscription = self._subscribe(self._qos_for(name) if kind in VIDEO else NEWEST)
        except ImportError as error:
            self._node.get_logger().error(f"{name} cannot be read, as {kind}: {error}")
            return
        self._node.destroy_subscription(self._pictures)
        self._pictures = subscription
        self._node.get_logger().info(f"images come as {kind}, on {name}")

    def _published(self) -> tuple[str, str] | None:
        """Return type and topic of the published images; raw images are preferred."""
        for end in ("", *TRANSPORTS):
            name = self._image_topic(end)
            kinds = {each.topic_type for each in self._node.get_publishers_info_by_topic(name)}
            for kind in TYPES["image"]:
                if kind in kinds:
                    return kind, name
        return None

    def _image_topic(self, end: str) -> str:
        """Return the topic of a transport: below that of `image`, unless remapped itself."""
        name, resolve = self._topic(f"image{end}"), self._node.resolve_topic_name
        if resolve(name) != resolve(name, only_expand=True):
            return resolve(name)
        return resolve(self._topic("image")) + end

    def _qos_for(self, name: str) -> QoSProfile:
        """Return the quality of service: reliable for video, if its publisher offers that."""
        offered = {
            each.qos_profile.reliability for each in self._node.get_publishers_info_by_topic(name)
        }
        return STREAM if offered == {ReliabilityPolicy.RELIABLE} else LOSSY_STREAM

    def _topic(self, name: str) -> str:
        return f"{self._name}/{name}" if self._name else name

    def _subscribe(self, qos: QoSProfile) -> Any:
        kind, name = self._taken
        return self._node.create_subscription(message_class(kind), name, self._take_image, qos)

    def _take_image(self, message: Any) -> None:
        received_s = time.perf_counter()
        self.images.add(received_s)
        for event in self._messages.take(message, now_ns(self._node)):
            if isinstance(event, ImageEvent):
                event = replace(event, received_s=received_s)
            self._push(event)

    def _take_calibration(self, message: CameraInfo) -> None:
        self._push(conversion.event_of("camera_info", message, now_ns(self._node), self._name))


def now_ns(node: LifecycleNode) -> int:
    """Return the time of a node's clock."""
    return int(node.get_clock().now().nanoseconds)


def _take_raw(push: Push, watch: Callable[[bytes], None], raw: bytes) -> None:
    watch(raw)
    push(conversion.transforms_event(lambda: deserialize_message(raw, TFMessage)))
