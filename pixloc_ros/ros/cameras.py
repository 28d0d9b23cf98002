"""The vehicle's cameras: one, or a rig whose images are taken together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from pixloc_ros.config import NodeConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.ros import conversions
from pixloc_ros.ros.diagnostics import Counters, Rate
from pixloc_ros.ros.latest_item import LatestItem
from pixloc_ros.sensors import conversion, decoding, topics
from pixloc_ros.sensors.camera_synchronizer import CameraSynchronizer
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import CameraInfoEvent
from pixloc_ros.sensors.static_transforms import normalized

# Best effort: an image that is lost is worth less than a newer one. One: the newest.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
CALIBRATION = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Undecoded images that belong together, by camera, and when the first of them came."""

    messages: Mapping[str, Any]
    received_s: float  # time.perf_counter()

    @property
    def lead(self) -> Any:
        """The image of the first camera that has one."""
        return next(iter(self.messages.values()))


@dataclass(frozen=True, slots=True)
class CameraCalibration:
    """What a camera said of itself."""

    camera: Camera
    frame: str


class CameraInput:
    """Images and calibration of one camera, on topics below its name."""

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        tally: Counters,
        compressed: bool,
        on_image: Callable[[str, Any], None],
        on_calibration: Callable[[], None],
    ) -> None:
        self.name = name
        self.images = Rate()
        self.calibration: CameraCalibration | None = None
        self._node, self._tally, self._compressed = node, tally, compressed
        self._on_image, self._on_calibration = on_image, on_calibration
        self._info = node.create_subscription(
            CameraInfo, self._topic("camera_info"), self._on_info, CALIBRATION
        )
        self._pictures = self._subscribe_images()

    def close(self) -> None:
        """Stop listening."""
        for subscription in (self._info, self._pictures):
            self._node.destroy_subscription(subscription)

    def look_for_images(self) -> None:
        """Change over to `image/compressed` where only that is published."""
        if self._compressed or self.images.last_s is not None:
            return
        raw, compressed = (
            self._node.count_publishers(self._node.resolve_topic_name(self._topic(name)))
            for name in ("image", "image/compressed")
        )
        if compressed and not raw:
            self._compressed = True
            self._node.destroy_subscription(self._pictures)
            self._pictures = self._subscribe_images()
            self._node.get_logger().info(f"images come compressed, on {self._pictures.topic_name}")

    def _topic(self, name: str) -> str:
        return f"{self.name}/{name}" if self.name else name

    def _subscribe_images(self) -> Any:
        kind, name = (CompressedImage, "image/compressed") if self._compressed else (Image, "image")
        return self._node.create_subscription(kind, self._topic(name), self._take_image, NEWEST)

    def _take_image(self, message: Any) -> None:
        self.images.add(time.perf_counter())
        self._on_image(self.name, message)

    def _on_info(self, message: CameraInfo) -> None:
        self._tally.add("camera_info.received")
        try:
            (event,) = conversion.events(
                "camera_info", topics.CAMERA_INFO, message, conversions.backend()
            )
            assert isinstance(event, CameraInfoEvent)
        except BadMessage as error:
            refuse(self._node, self._tally, "camera_info", error)
            self.calibration = None  # an old one may be of another setting of the lens
            return
        self._calibrate(event)

    def _calibrate(self, event: CameraInfoEvent) -> None:
        before = self.calibration
        if before is not None and _describe(before.camera) != _describe(event.camera):
            self._tally.add("camera_info.changed", _describe(event.camera))
            self._node.get_logger().warning(f"camera changed: {_describe(event.camera)}")
        self.calibration = CameraCalibration(event.camera, normalized(event.frame_id))
        self._on_calibration()


class Cameras:
    """All cameras; puts what they saw at one moment into the mailbox."""

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        mailbox: LatestItem[ImageGroup],
        tally: Counters,
    ) -> None:
        self.enabled = True  # whether images are looked at
        self._mailbox, self._tally = mailbox, tally
        self._together = CameraSynchronizer[tuple[Any, float]](
            config.camera_names, config.camera_sync_tolerance_s
        )
        self._newest_ns = 0
        self._changed = threading.Condition()
        self._inputs = {
            name: CameraInput(node, name, tally, config.compressed, self._on_image, self._notify)
            for name in config.camera_names
        }

    def close(self) -> None:
        """Stop listening."""
        for camera in self._inputs.values():
            camera.close()
        self._mailbox.clear()

    def look_for_images(self) -> None:
        for camera in self._inputs.values():
            camera.look_for_images()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    @property
    def rates(self) -> dict[str, Rate]:
        """Of the images, by camera."""
        return {name: camera.images for name, camera in self._inputs.items()}

    @property
    def last_s(self) -> float | None:
        """When the last image of any camera came (time.perf_counter())."""
        times = [rate.last_s for rate in self.rates.values() if rate.last_s is not None]
        return max(times, default=None)

    def calibration(self, name: str, timeout_s: float) -> CameraCalibration | None:
        """Of a camera, waiting for it so long; None where it did not come in time."""
        camera = self._inputs[name]
        with self._changed:
            self._changed.wait_for(lambda: camera.calibration is not None, timeout_s)
            return camera.calibration

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_image(self, name: str, message: Any) -> None:
        self._tally.add("image.received")
        if not self.enabled:
            self._tally.add("image.ignored")
            return
        for group in self._groups(name, message):
            messages = {camera: image for camera, (image, _) in group.items()}
            received_s = min(received_s for _, received_s in group.values())
            if self._mailbox.put(ImageGroup(messages, received_s)):
                self._tally.add("image.dropped")

    def _groups(self, name: str, message: Any) -> list[Mapping[str, tuple[Any, float]]]:
        stamp_ns = decoding.stamp_ns(message.header)
        if stamp_ns < self._newest_ns - _BACK_NS:
            self._together.clear()
            self._newest_ns = stamp_ns
        self._newest_ns = max(self._newest_ns, stamp_ns)
        groups = self._together.add(name, stamp_ns, (message, time.perf_counter()))
        for camera in self._together.late:
            self._tally.add(f"image.late.{camera}")
        self._together.late.clear()
        return groups


_BACK_NS = 10**9  # stamps that go back by more are a bag that began anew


def refuse(node: LifecycleNode, tally: Counters, part: str, error: BadMessage) -> None:
    """Count a useless message; the first of its kind is logged."""
    if tally.add(f"{part}.bad.{error.reason}", str(error)) == 1:
        node.get_logger().warning(f"{part} refused ({error.reason}): {error}")


def _describe(camera: Camera) -> str:
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    distortion = [round(value, 6) for value in camera.distortion.tolist()]
    return (
        f"{camera.model} {camera.width}x{camera.height} f {fx:.3f} {fy:.3f} c {cx:.3f} {cy:.3f} "
        f"d {distortion}"
    )
