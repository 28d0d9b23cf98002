"""A topic of a running system, and the messages received on it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pixloc_ros.sensors import conversion, decoding, video
from pixloc_ros.sensors.events import Event
from pixloc_ros.sensors.image_messages import ImageMessages


@dataclass(slots=True)
class WatchedTopic:
    """One topic and the messages received on it."""

    part: str
    name: str
    kind: str
    received_s: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)  # of the stamps, by this machine's clock
    last: Any = None
    images: ImageMessages = field(default_factory=ImageMessages)  # decodes a video
    last_image: Event | None = None  # of a video, whose images depend on earlier ones

    def take(self, message: Any) -> None:
        """Record a message: when it arrived, and how old its stamp is."""
        self.received_s.append(time.monotonic())
        if self.part != "tf_static":
            self.ages_s.append(time.time() - decoding.stamp_ns(video.header(message)) * 1e-9)
        self.last = message
        if video.is_packet(message):
            for event in self.images.take(message, time.time_ns()):
                self.last_image = event

    @property
    def event(self) -> Event | None:
        """The event that the node would make of the last message; None without one."""
        if self.last is None:
            return None
        if video.is_packet(self.last):
            return self.last_image
        return conversion.event_of(self.part, self.last, time.time_ns())

    @property
    def hz(self) -> float:
        """Messages per second."""
        times = self.received_s
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
