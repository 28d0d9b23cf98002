"""Messages of every type that the node takes, with values that nobody would send in good faith."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis.strategies import SearchStrategy

from fuzz import samples
from fuzz.damage import hostile_messages
from fuzz.harness import Target
from pixloc_ros.errors import PixlocError
from pixloc_ros.replay import messages
from pixloc_ros.sensors import conversion
from pixloc_ros.sensors.events import Event, ImageEvent, RefusedMessage, StaticTransformsEvent

MATRICES = ("T_odom_child", "T_frame_base", "T_parent_child", "covariance", "covariance_enu")
MAX_VALUE = 1e13  # squared, it is still a number


def as_sent(message: Any) -> Any:
    """A message as it would arrive: of its types, or not at all."""
    store, kind = messages.typestore(), message.__msgtype__
    try:
        return store.deserialize_cdr(store.serialize_cdr(message, kind), kind)
    except Exception:
        assume(False)


def check(event: Event) -> None:
    """An event is safe to reckon with, or a refusal by a check that was meant. Raises PixlocError.

    A refusal for a reason that nobody thought of is a defect of ours.
    """
    if isinstance(event, RefusedMessage):
        assert event.reason != "unforeseen", event.message
        raise PixlocError(event.message)
    if isinstance(event, ImageEvent):
        event.decode(None)
    if isinstance(event, StaticTransformsEvent):
        assert all(refused.reason != "unforeseen" for refused in event.refused)
    for each in getattr(event, "transforms", [event]):
        for name in MATRICES:
            value = getattr(each, name, None)
            assert value is None or np.abs(value).max() < MAX_VALUE, name


def _target(part: str) -> Target:
    def cases() -> SearchStrategy[Any]:
        return hostile_messages(samples.all_messages()[part])

    def read(message: Any, folder: Path) -> None:
        check(conversion.event_of(part, as_sent(message), received_ns=1))

    return Target(f"message {part}", cases, read)


TARGETS = [_target(part) for part in samples.all_messages()]
