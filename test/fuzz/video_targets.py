"""Packets of videos, some damaged, in the order of a camera that nobody trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from fuzz import samples
from fuzz.damage import damaged_bytes, hostile_messages
from fuzz.harness import Target
from fuzz.message_targets import as_sent
from helpers.video import changed
from pixloc_ros.sensors.events import ImageEvent, RefusedMessage
from pixloc_ros.sensors.image_messages import ImageMessages


@st.composite
def _videos(draw: DrawFn) -> list[Any]:
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
    return [packet for i, packet in enumerate(packets) if i not in lost]


def _read(packets: list[Any], folder: Path) -> None:
    """Every packet is answered once, by an image that can be decoded or a refusal that was meant.

    Raises PixlocError for an image that is refused when it is looked into, for its size.
    """
    images = ImageMessages("front")
    events = [event for packet in packets for event in images.take(as_sent(packet), 1)]
    events += images.finish()
    assert len(events) == len(packets), "a packet was not answered, or twice"
    for event in events:
        assert isinstance(event, ImageEvent | RefusedMessage)
        if isinstance(event, ImageEvent):
            event.decode(None)
        else:
            assert event.reason != "unforeseen", event.message


TARGETS = [Target("message video", _videos, _read, quick=60)]
