"""The same messages give the same estimates and counters, live and from a bag.

The live path is that of the node but for DDS: messages through the door into a session with its
worker's thread. The replay path is that of `pixloc replay`: a bag, its reader, a session. Whatever
the messages are, the two must agree.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from helpers.drives import write_messages
from helpers.message_drive import (
    Message,
    TruthfulLocalizer,
    at_ns,
    calibration,
    drive,
    image,
    initial_pose,
    odometry,
    odometry_on_tf,
    static_transforms,
)
from pixloc_ros.config import Config, from_flat
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.runner import drive_events
from pixloc_ros.ros.live_session import LiveSession
from pixloc_ros.sensors import conversion
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate

TOPICS = {
    "image": "/image",
    "camera_info": "/camera_info",
    "odom": "/odom",
    "gnss_fix": "/gnss/fix",
    "initialpose": "/initialpose",
    "tf_static": "/tf_static",
    "tf": "/tf",
}
PATIENCE_S = 60.0
# The live path waits by the wall clock, too. Nothing is late here, however busy the machine is.
PATIENT = {"priors.odometry_wait_s": 10.0, "node.calibration_wait_s": 60.0}
LATER_S = 100.0  # when the last messages come, which leave nothing waiting


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a drive."""

    estimates: list[Estimate]
    counts: dict[str, int]
    rejected: dict[str, int]


def outcome(session: Session, estimates: list[Estimate]) -> Outcome:
    return Outcome(estimates, session.counters.counts(), dict(session.tracker.rejected))


def replayed(timed: list[Message], config: Config, localizer: Any = None) -> Outcome:
    """What `pixloc replay` makes of the messages."""
    session = Session(localizer or TruthfulLocalizer(config))
    with tempfile.TemporaryDirectory() as folder:
        recorded = [(k + 1, topic(part), m) for k, (part, m) in enumerate(timed)]
        path = write_messages(Path(folder) / "bag", recorded)
        with BagReader(path, cameras=config.node.camera_names) as reader:
            return outcome(session, list(session.run(drive_events(reader))))


@contextmanager
def patient_session(session: Session, answers: list[Estimate]) -> Iterator[LiveSession]:
    """A live session that drops nothing."""
    live = LiveSession(
        session, lambda answer: answers.append(answer.estimate), max_waiting=1_000_000
    )
    live.start()
    try:
        yield live
    finally:
        assert live.stop(PATIENCE_S)


def lived(timed: list[Message], config: Config, localizer: Any = None) -> Outcome:
    """What the node makes of the messages, when it has time for each of them."""
    answers: list[Estimate] = []
    session = Session(localizer or TruthfulLocalizer(config))
    with patient_session(session, answers) as live:
        for received_ns, (key, message) in latched_first(timed):
            part, _, camera = key.partition("/")
            if part == "tf":
                live.push(conversion.transforms_event(partial(lambda m: m, message)))
            else:
                live.push(conversion.event_of(part, message, received_ns, camera))
            settle(live)
    return outcome(session, answers)


def topic(key: str) -> str:
    """Of a part, or of `part/camera`."""
    part, _, camera = key.partition("/")
    return f"/{camera}/{part}" if camera else TOPICS[part]


def latched_first(timed: list[Message]) -> list[tuple[int, Message]]:
    """DDS hands what is latched to a node as soon as it listens; a replay reads it first, too."""
    received = list(enumerate(timed, start=1))
    return sorted(received, key=lambda each: each[1][0] != "tf_static")


def settle(live: LiveSession) -> None:
    """Let the worker do what it can before the next message comes."""
    end_s = time.monotonic() + PATIENCE_S
    while not live.settled():
        assert time.monotonic() < end_s, "the worker is stuck"
        time.sleep(0.0001)


def assert_same(live: Outcome, replay: Outcome) -> None:
    assert [(e.reason, e.stamp_ns) for e in live.estimates] == [
        (e.reason, e.stamp_ns) for e in replay.estimates
    ]
    for one, other in zip(live.estimates, replay.estimates, strict=True):
        assert (one.status, one.message, one.name) == (other.status, other.message, other.name)
        assert one.cameras == other.cameras
        np.testing.assert_equal(one.T_map_base, other.T_map_base)
        np.testing.assert_equal(one.covariance, other.covariance)
        assert (one.prior is None) == (other.prior is None)
        if one.prior is not None and other.prior is not None:
            assert one.prior.source == other.prior.source
            np.testing.assert_array_equal(one.prior.T_map_base, other.prior.T_map_base)
            np.testing.assert_array_equal(one.prior.covariance, other.prior.covariance)
    assert live.counts == replay.counts
    assert live.rejected == replay.rejected


# --- what may happen to the messages of a drive ------------------------------------------------

ODD_S = st.sampled_from([-3600.0, -5.0, -0.3, -0.02, 0.02, 0.3, 1.2, 5.0, 3600.0])
WHERE = st.integers(0, 10_000)
FEW = st.integers(1, 12)
MISHAPS = st.one_of(
    st.tuples(st.just("shift"), WHERE, ODD_S),
    st.tuples(st.just("shift two"), WHERE, ODD_S),
    st.tuples(st.just("drop"), WHERE, FEW),
    st.tuples(st.just("repeat"), WHERE, FEW),
    st.tuples(st.just("delay"), WHERE, FEW),
    st.tuples(st.just("begin again"), WHERE, st.just(0)),
    st.tuples(st.just("spoil"), WHERE, FEW),
    st.tuples(st.just("click"), WHERE, st.sampled_from(["map", "odom", "moon"])),
    st.tuples(st.just("late calibration"), st.just(0), FEW),
    st.tuples(st.just("silence"), WHERE, FEW),
    st.tuples(st.just("freeze"), WHERE, FEW),
)


def mishap(timed: list[Message], kind: str, where: int, how: Any) -> list[Message]:
    """The messages after one mishap; never none at all."""
    return HAPPENS[kind](timed, where % len(timed), how) or timed


def following(timed: list[Message], k: int, count: int) -> list[int]:
    """Indices of some messages of one topic, from number k on."""
    return [i for i, (part, _) in enumerate(timed) if part == timed[k][0] and i >= k][:count]


def shift(timed: list[Message], k: int, seconds: float, count: int = 1) -> list[Message]:
    odd = following(timed, k, count)
    return [shifted(m, seconds) if i in odd else m for i, m in enumerate(timed)]


def delay(timed: list[Message], k: int, by: int) -> list[Message]:
    rest = [*timed[:k], *timed[k + 1 :]]
    return [*rest[: k + by], timed[k], *rest[k + by :]]


def silence(timed: list[Message], k: int, ticks: int) -> list[Message]:
    silent = following(timed, k, 5 * ticks)
    return [m for i, m in enumerate(timed) if i not in silent]


def late_calibration(timed: list[Message], _: int, count: int) -> list[Message]:
    late = [i for i, (part, _) in enumerate(timed) if part.startswith("camera_info")][:count]
    return [m for i, m in enumerate(timed) if i not in late]


def frozen(timed: list[Message], k: int, count: int) -> list[Message]:
    """Some images with the pixels of the first of them."""
    images = [i for i, (part, _) in enumerate(timed) if part.startswith("image") and i >= k]
    if not images:
        return timed
    pixels, hung = timed[images[0]][1].data, images[:count]
    return [
        (part, replace(m, data=pixels)) if i in hung else (part, m)
        for i, (part, m) in enumerate(timed)
    ]


HAPPENS: dict[str, Callable[[list[Message], int, Any], list[Message]]] = {
    "shift": shift,
    "shift two": partial(shift, count=2),
    "drop": lambda timed, k, count: [*timed[:k], *timed[k + count :]],
    "repeat": lambda timed, k, count: [*timed[: k + count], *timed[k:]],
    "delay": delay,
    "begin again": lambda timed, k, _: [*timed, *timed[: k + 1]],
    "spoil": lambda timed, k, how: [*timed[:k], spoiled(timed[k], how), *timed[k + 1 :]],
    "click": lambda timed, k, f: [*timed[:k], initial_pose(at_ns(0.1), f), *timed[k:]],
    "late calibration": late_calibration,
    "silence": silence,
    "freeze": frozen,
}


def shifted(message: Message, seconds: float) -> Message:
    """The message with another stamp."""
    part, content = message
    if part in ("tf", "tf_static"):
        (transform,) = content.transforms
        return part, replace(content, transforms=[with_stamp(transform, seconds)])
    return part, with_stamp(content, seconds)


def with_stamp(content: Any, seconds: float) -> Any:
    stamp = content.header.stamp
    stamp_ns = stamp.sec * 10**9 + stamp.nanosec + round(seconds * 1e9)
    return replace(content, header=messages.header(stamp_ns, content.header.frame_id))


def spoiled(message: Message, how: int) -> Message:
    """The message as a broken driver sends it: without a stamp, or with wrong contents."""
    part, content = message
    if part.startswith("tf"):
        (transform,) = content.transforms
        w = replace(transform.transform.rotation, w=7.0)
        wrong = replace(transform, transform=replace(transform.transform, rotation=w))
        return part, replace(content, transforms=[wrong])
    if how % 3 == 0:
        return part, replace(content, header=messages.header(0, content.header.frame_id))
    if how % 3 == 1:
        header = replace(content.header, frame_id="nowhere")
        return part, replace(content, header=header)
    kind = part.partition("/")[0]
    if kind == "image":
        return part, replace(content, step=7)
    if kind == "camera_info":
        return part, replace(content, k=np.zeros(9))
    if kind == "gnss_fix":
        return part, replace(content, latitude=float("nan"))
    pose = content.pose.pose
    position = replace(pose.position, x=float("nan"))
    return part, replace(content, pose=replace(content.pose, pose=replace(pose, position=position)))


def ending(of: list[Message]) -> list[Message]:
    """Messages much later, after which nothing waits any more."""
    cameras = sorted({part for part, _ in of if part.startswith("image")}) or ["image"]
    end = [static_transforms()]
    for tick in range(4):
        stamp_ns = at_ns(LATER_S + tick / 10)
        for key in cameras:
            suffix = key.removeprefix("image")
            end.append((f"camera_info{suffix}", calibration(stamp_ns)[1]))
            end.append((key, image(stamp_ns)[1]))
    return end


def with_second_camera(timed: list[Message]) -> list[Message]:
    """The drive as a rig of two cameras records it."""
    rig = []
    for part, message in timed:
        if part in ("image", "camera_info"):
            rig += [(f"{part}/{camera}", message) for camera in ("front", "left")]
        else:
            rig.append((part, message))
    return rig


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    mishaps=st.lists(MISHAPS, max_size=5),
    fixes=st.booleans(),
    setup=st.sampled_from(["topic", "tf", "rig"]),
)
def test_live_and_replayed_are_the_same(
    mishaps: list[tuple[str, int, Any]], fixes: bool, setup: str
) -> None:
    timed = drive(6, fixes, odometry_on_tf if setup == "tf" else odometry)
    timed = with_second_camera(timed) if setup == "rig" else timed
    for each in mishaps:
        timed = mishap(timed, *each)
    timed = [*timed, *ending(timed)]
    choices = {"tf": {"node.odom_source": "tf"}, "rig": {"node.cameras": "front,left"}}
    config = from_flat({**PATIENT, **choices.get(setup, {})})
    replay = replayed(timed, config)
    for reason in {estimate.reason for estimate in replay.estimates}:
        event(reason.value)
    assert_same(lived(timed, config), replay)
