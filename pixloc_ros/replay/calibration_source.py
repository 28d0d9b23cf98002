"""A calibration file in place of CameraInfo, which many recordings lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.replay import messages
from pixloc_ros.replay.storage import RawMessage
from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.topics import CAMERA_INFO


class CalibrationSource:
    """A BagSource of one CameraInfo, as if it had been recorded with the camera's first image.

    topic: the name of the file, as the user gave it.
    header: stamp and frame of that image; log_ns: when it was recorded.
    """

    def __init__(self, topic: str, camera: Camera, header: Any, log_ns: int):
        self.types = {topic: CAMERA_INFO}
        self.counts = Counter({topic: 1})
        self.damage: str | None = None
        stamp_ns = decoding.stamp_ns(header) or log_ns
        info = messages.camera_info(stamp_ns, header.frame_id, camera)
        data = messages.typestore().serialize_cdr(info, CAMERA_INFO)
        self._message = RawMessage(topic, log_ns, bytes(data))

    def messages(
        self, topics: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[RawMessage]:
        """Yield the message if its topic and time are asked for."""
        topic, log_ns, _ = self._message
        began = start_ns is None or start_ns <= log_ns
        if topic in topics and began and (stop_ns is None or log_ns < stop_ns):
            yield self._message

    def close(self) -> None:
        """Do nothing."""
