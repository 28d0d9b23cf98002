"""Messages of a bag, picked and altered."""

from __future__ import annotations

import copy
from typing import Any

from pixloc_ros.sensors import decoding


def without(bag: Any, *dropped: str) -> list[tuple[str, Any]]:
    return [(topic, message) for topic, message in bag.messages if topic not in dropped]


def up_to_frame(messages: list[tuple[str, Any]], count: int) -> list[tuple[str, Any]]:
    """The messages before frame number `count`."""
    images = [i for i, (topic, _) in enumerate(messages) if topic == "/image"]
    return messages[: images[count]]


def changed(message: Any, **changes: Any) -> Any:
    """A copy with fields set by dotted name."""
    result = copy.deepcopy(message)
    for name, value in changes.items():
        *path, leaf = name.split(".")
        target = result
        for part in path:
            target = getattr(target, part)
        setattr(target, leaf, value)
    return result


def shifted(message: Any, seconds: float) -> Any:
    """The message at another time."""
    from pixloc_ros.ros.message_basics import time_message

    stamp_ns = decoding.stamp_ns(message.header) + round(seconds * 1e9)
    return changed(message, **{"header.stamp": time_message(stamp_ns)})
