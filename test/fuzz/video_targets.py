"""Packets of videos, some damaged, in the order of a camera that nobody trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from fuzz import samples
from fuzz.damage import damaged_bytes, hostile_messages
from fuzz.harness import Target
from helpers.video import changed
from pixloc_ros.replay import messages
from pixloc_ros.sensors.events import ImageEvent, RefusedMessage
from pixloc_ros.sensors.image_messages import ImageMessages


@st.composite
def _videos(draw: DrawFn) -> list[tuple[str, bytes]]:
    """Packets of one video, with damaged ones, lost ones and those of other videos among them."""
    videos = samples.videos()
    packets = list(draw(st.sampled_from(videos)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(packets) - 1))
        data = bytes(packets[at].data)
        packets[at] = draw(
            st.one_of(
                damaged_bytes([data]).map(
                    lambda content, at=at: changed(packets[at], np.frombuffer(content, np.uint8))
                ),
                hostile_messages([packets[at]]),
                st.sampled_from([each for video in videos for each in video]),
            )
        )
    lost = draw(st.sets(st.integers(0, len(packets) - 1), max_size=2))
    left = [packet for i, packet in enumerate(packets) if i not in lost]
    return [(packet.__msgtype__, _serialized(packet)) for packet in left]


def _serialized(packet: Any) -> bytes:
    """As it would arrive, or not at all. These types cannot be pickled, as faults are kept."""
    try:
        return bytes(messages.typestore().serialize_cdr(packet, packet.__msgtype__))
    except Exception:
        assume(False)
        raise


def _read(video: list[tuple[str, bytes]], folder: Path) -> None:
    """Every packet is answered once, by an image that can be decoded or a refusal that was meant.

    Raises PixlocError for an image that is refused when it is looked into, for its size.
    """
    images, deserialize = ImageMessages("front"), messages.typestore().deserialize_cdr
    packets = [deserialize(content, kind) for kind, content in video]
    events = [event for packet in packets for event in images.take(packet, 1)]
    events += images.finish()
    assert len(events) == len(packets), "a packet was not answered, or twice"
    for event in events:
        assert isinstance(event, ImageEvent | RefusedMessage)
        if isinstance(event, ImageEvent):
            event.decode(None)
        else:
            assert event.reason != "unforeseen", event.message


TARGETS = [Target("message video", _videos, _read, quick=60)]
