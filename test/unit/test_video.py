"""Images that come as H.264 or H.265: what is decoded, with which stamps, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.video import Packet, message, packets
from pixloc_ros.sensors import topics, video
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Event, ImageEvent, RefusedMessage
from pixloc_ros.sensors.video import VideoDecoder

START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000
WIDTH, HEIGHT, COUNT = 96, 64, 30
KINDS = list(itertools.product(("h264", "hevc"), (False, True)))
IDS = [f"{codec}{' with B-frames' if b_frames else ''}" for codec, b_frames in KINDS]
MAX_DIFFERENCE = 4.0  # grey levels, mean; images of neighbours differ by more than twice that


@cache
def images() -> list[np.ndarray]:
    """A slide past smooth blotches without colour, which yuv420p would blur."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 60), np.uint8)
    large = cv2.resize(coarse, (600, 160), interpolation=cv2.INTER_CUBIC)
    cuts = (large[i : i + HEIGHT, 4 * i : 4 * i + WIDTH] for i in range(COUNT))
    return [np.repeat(cut[..., None], 3, axis=2) for cut in cuts]


@cache
def video_of(codec: str, b_frames: bool = False) -> list[Packet]:
    return packets(images(), codec, b_frames)


def decoded(
    codec: str, coded: Sequence[Packet], decoder: VideoDecoder | None = None
) -> list[Event]:
    decoder = decoder or VideoDecoder()
    events: list[Event] = []
    for index, data in coded:
        at_ns = START_NS + index * STEP_NS
        events += decoder.take(message(topics.FFMPEG_PACKET, at_ns, codec, data), 1)
    return events + decoder.finish()


def index_of(event: Any) -> int:
    return int(event.stamp_ns - START_NS) // STEP_NS


def right(events: Sequence[Event]) -> list[int]:
    """Which images came, each of which must be the one that its stamp says."""
    found = [event for event in events if isinstance(event, ImageEvent)]
    for event in found:
        image = event.decode((WIDTH, HEIGHT)).astype(float)
        difference = np.abs(image - images()[index_of(event)]).mean()
        assert difference < MAX_DIFFERENCE, f"image {index_of(event)} is another one"
    return [index_of(event) for event in found]


def refused(events: Sequence[Event]) -> dict[int, str]:
    return {index_of(e): e.reason for e in events if isinstance(e, RefusedMessage)}


def test_the_images_of_this_test_tell_neighbours_apart() -> None:
    pairs = itertools.pairwise(images())
    differences = [np.abs(a.astype(float) - b).mean() for a, b in pairs]
    assert min(differences) > 2 * MAX_DIFFERENCE


@pytest.mark.parametrize(("codec", "b_frames"), KINDS, ids=IDS)
def test_each_packet_becomes_the_image_of_its_stamp(codec: str, b_frames: bool) -> None:
    coded = video_of(codec, b_frames)
    assert (sorted(coded) != coded) == b_frames
    events = decoded(codec, coded)
    assert right(events) == list(range(COUNT)) and not refused(events)


@pytest.mark.parametrize("lost", [{1}, {11, 12, 13}, {0}, set()], ids=str)
@pytest.mark.parametrize(("codec", "b_frames"), KINDS, ids=IDS)
def test_after_a_loss_nothing_comes_before_the_next_key_frame(
    codec: str, b_frames: bool, lost: set[int]
) -> None:
    """Which are lost by their places; at the end, the second key frame is."""
    coded = video_of(codec, b_frames)
    keys = [i for i, (_, data) in enumerate(coded) if video.is_key(message_of(codec, data))]
    lost = lost or {keys[1]}
    events = decoded(codec, [packet for i, packet in enumerate(coded) if i not in lost])
    assert len(events) == COUNT - len(lost), "a packet was not answered"
    first = min(lost)
    resumed = next(i for i in keys if i > first and i not in lost)
    before = {index for index, _ in coded[:first]}
    after = {index for index, _ in coded[resumed:]}
    came = right(events)
    assert came == sorted(came) and before <= set(came)
    # Pictures that are shown before the key frame may build upon what was lost.
    assert set(came) - before <= after and after - set(came) <= set(range(coded[resumed][0]))
    reasons = Counter(refused(events).values())
    assert reasons.keys() <= {"video_packet_lost", "video_awaits_key_frame", "video_undecodable"}


def test_a_picture_that_others_do_not_build_upon_may_be_lost() -> None:
    coded = video_of("h264", True)
    unused = next(i for i, (_, data) in enumerate(coded) if reference_mark(data) == 0)
    events = decoded("h264", coded[:unused] + coded[unused + 1 :])
    assert len(right(events)) == COUNT - 1 and not refused(events)


def reference_mark(data: bytes) -> int:
    """nal_ref_idc of the slice of a picture of H.264."""
    headers = [unit[0] for unit in video.units(data)]
    return next(header >> 5 & 3 for header in headers if header & 31 in (1, 5))


def message_of(codec: str, data: bytes, **changes: Any) -> Any:
    packet = message(topics.FFMPEG_PACKET, START_NS, codec, data)
    for name, value in changes.items():
        setattr(packet, name, value)
    return packet


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    ("reason", "damage"),
    [
        ("video_malformed", lambda data: b"no video"),
        ("video_malformed", lambda data: b""),
        ("video_malformed", lambda data: b"\0\0\1" * 5000),
        ("video_undecodable", lambda data: data[:12]),
    ],
)
def test_a_broken_packet_is_told_and_not_shown(
    codec: str, reason: str, damage: Callable[[bytes], bytes]
) -> None:
    coded = list(video_of(codec))
    coded[13] = (13, damage(coded[13][1]))
    events = decoded(codec, coded)
    assert right(events) == [*range(13), *range(20, COUNT)]
    assert refused(events) == {13: reason} | dict.fromkeys(range(14, 20), "video_awaits_key_frame")


def test_half_a_packet_of_h264_is_not_shown() -> None:
    coded = list(video_of("h264"))
    coded[20] = (20, coded[20][1][: len(coded[20][1]) // 2])
    assert refused(decoded("h264", coded))[20] == "video_undecodable"


def test_a_video_that_goes_on_in_another_codec() -> None:
    decoder = VideoDecoder()
    first = decoded("h264", video_of("h264", True)[:15], decoder)
    second = decoded("hevc", video_of("hevc")[20:], decoder)
    assert len(right(first)) == 15 and right(second) == list(range(20, COUNT))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "theora"}, "video_codec"),
        ({"encoding": ""}, "video_codec"),
        ({"encoding": "libx264"}, ""),
        ({"encoding": "h264_nvenc"}, ""),
    ],
)
def test_names_of_codecs(changes: dict[str, str], reason: str) -> None:
    (event,) = VideoDecoder().take(message_of("h264", video_of("h264")[0][1], **changes), 1)
    assert getattr(event, "reason", "") == reason


def test_sizes_are_judged_before_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video._OPTIONS, "max_pixels", "5000")
    for codec in ("h264", "hevc"):
        events = decoded(codec, video_of(codec)[:2])
        assert set(refused(events).values()) == {"video_undecodable", "video_awaits_key_frame"}


def test_an_image_of_another_size_than_calibrated_is_refused() -> None:
    (event,) = VideoDecoder().take(message_of("h264", video_of("h264")[0][1]), 1)
    assert isinstance(event, ImageEvent)
    with pytest.raises(BadMessage, match="96x64, calibrated for 640x480"):
        event.decode((640, 480))


def test_without_a_decoder_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    packet = message(topics.COMPRESSED_VIDEO, START_NS, "h264", video_of("h264")[0][1])
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    (event,) = VideoDecoder("front").take(packet, 1)
    assert isinstance(event, RefusedMessage)
    assert (event.reason, event.camera_name) == ("video_decoder_missing", "front")
    assert "pip install 'pixloc_ros[video]'" in event.message and event.stamp_ns == START_NS
