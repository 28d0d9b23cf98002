"""A drive with hostile messages in it, and a drive under settings of any kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from fuzz.damage import hostile_messages
from fuzz.harness import Target
from fuzz.message_targets import as_sent
from fuzz.parameters import parameters
from helpers import message_drive
from helpers.message_drive import TruthfulLocalizer
from pixloc_ros.config import from_flat
from pixloc_ros.replay import messages
from pixloc_ros.sensors import conversion
from pixloc_ros.sensors.events import Event, ImageEvent
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate

Messages = list[message_drive.Message]
SHIFTS_S = (0.0, 0.0, 0.01, -0.01, 0.5, -0.5, 2.0, -2.0, 60.0, -60.0, 1e5, -1e5)
LATER_S = 30.0  # when a drive without hostile messages follows
RECOVERED = 5  # of its frames, the last ones


@st.composite
def _hostile_drives(draw: DrawFn) -> Messages:
    """A drive of 12 images into which somebody else publishes."""
    drive = message_drive.drive(frames=12)
    drive += [message_drive.initial_pose(message_drive.at_ns(0.0))]
    for _ in range(draw(st.integers(1, 12))):
        part, sample = draw(st.sampled_from(drive))
        hostile = draw(st.one_of(st.just(sample), hostile_messages([sample], most=2)))
        if hasattr(hostile, "header"):
            stamp_ns = round(_stamp_ns(hostile) + 1e9 * draw(st.sampled_from(SHIFTS_S)))
            if 0 <= stamp_ns < 2**31 * 10**9:
                hostile = _with_stamp(hostile, stamp_ns)
        part = "tf" if part == "tf_static" and draw(st.booleans()) else part
        copies = draw(st.sampled_from((1, 1, 2, 5)))
        at = draw(st.integers(0, len(drive)))
        drive[at:at] = [(part, hostile)] * copies
    return drive


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _with_stamp(message: Any, stamp_ns: int) -> Any:
    from dataclasses import replace

    return replace(message, header=messages.header(stamp_ns, message.header.frame_id))


def _event(message: message_drive.Message) -> Event:
    part, content = message
    if part == "tf":
        return conversion.transforms_event(lambda: content)
    return conversion.event_of(part, content, received_ns=1)


def _run(session: Session, drive: Messages) -> list[Estimate]:
    """The estimates of a drive, every image of which must be answered, and soundly."""
    events = [_event((part, as_sent(message))) for part, message in drive]
    before = session.counters.counts()
    estimates = list(session.run(events))
    counts = Counter(session.counters.counts())
    counts.subtract(before)
    images = sum(isinstance(event, ImageEvent) for event in events)
    images += counts["image.received"] - images  # refused ones are answered, too
    assert len(estimates) == images - counts["image.repeated"], "an image was not answered"
    for estimate in estimates:
        values = [estimate.T_map_base, estimate.covariance] if estimate.ok else []
        assert all(value is not None and np.isfinite(value).all() for value in values)
    unforeseen = [name for name in counts if "unforeseen" in name]
    assert not unforeseen, session.counters.lines()
    return estimates


def _recover(drive: Messages, folder: Path) -> None:
    """Whatever came, the session answers, and finds its way when all is well again."""
    session = Session(TruthfulLocalizer())
    _run(session, drive)
    stamp_ns = message_drive.at_ns(LATER_S)
    predicted = session.tracker.predict(stamp_ns)
    assert predicted is None or all(np.isfinite(value).all() for value in predicted)
    after = _run(session, message_drive.drive(frames=40, start_s=LATER_S))
    reasons = [estimate.reason.value for estimate in after]
    assert all(estimate.ok for estimate in after[-RECOVERED:]), reasons


def _obey(settings: dict[str, Any], folder: Path) -> None:
    """Settings that are accepted do no harm."""
    session = Session(TruthfulLocalizer(from_flat(settings)))
    for event in map(_event, message_drive.drive(frames=6)):
        session.push(event)
    session.finish()


TARGETS = [
    Target("session", _hostile_drives, _recover, quick=10),
    Target("session settings", parameters, _obey, quick=100),
]
