"""Convert the image messages of one camera: pictures, or packets of a video."""

from __future__ import annotations

from typing import Any

from pixloc_ros.sensors import conversion, decoding, video
from pixloc_ros.sensors.events import Event


class ImageMessages:
    """Converts one camera's messages, in order: pictures, or packets of a video.

    camera_name: which camera of a rig.
    unpack: decodes raw images.
    """

    def __init__(self, camera_name: str = "", unpack: decoding.Unpack = decoding.unpack) -> None:
        self._camera_name = camera_name
        self._unpack = unpack
        self._video = video.VideoDecoder(camera_name)

    def take(self, message: Any, received_ns: int) -> list[Event]:
        """Return the events of one message. Raises nothing, like `conversion.event_of`."""
        if video.is_packet(message):
            return self._video.take(message, received_ns)
        event = conversion.event_of("image", message, received_ns, self._camera_name, self._unpack)
        return [event]

    def finish(self) -> list[Event]:
        """Return the remaining images of a video."""
        return self._video.finish()
