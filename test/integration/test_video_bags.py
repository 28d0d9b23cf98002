"""Drives whose images are a video: the same poses as of the images, from bags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.drives import write_drive, write_messages
from helpers.video import as_video
from pixloc_ros.cli import main
from pixloc_ros.common import image_files
from pixloc_ros.config import Config
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import drive_events
from pixloc_ros.replay.storage import RawMessage, open_sources
from pixloc_ros.replay.video_encoder import VideoEncoder
from pixloc_ros.sensors import topics, video
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.sensors.video import VideoDecoder
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate

TOPIC = {topics.FFMPEG_PACKET: "/image/ffmpeg", topics.COMPRESSED_VIDEO: "/image/foxglove"}
FRAMES = 7
MAX_DIFFERENCE_M, MAX_DIFFERENCE_DEG = 0.02, 0.1  # by compression: a third of a pixel's width

Transcode = Callable[..., Path]


@pytest.fixture(scope="module")
def transcode(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Transcode:
    """The drive along the street with its images as a video."""

    def write(kind: str, codec: str, b_frames: bool = False, lost: int | None = None) -> Path:
        (source,) = open_sources(street / "bag")
        raws: list[RawMessage] = list(source.messages(set(source.types), None, None))
        store = messages.typestore()
        timed: list[tuple[int, str, Any]] = [
            (raw.log_ns, raw.topic, store.deserialize_cdr(raw.data, source.types[raw.topic]))
            for raw in raws
        ]
        source.close()
        images = [message for _, topic, message in timed if topic == "/image"]
        coded = iter(enumerate(as_video(kind, codec, images, b_frames)))
        drive = []
        for log_ns, topic, message in timed:
            if topic != "/image":
                drive.append((log_ns, topic, message))
                continue
            number, packet = next(coded)
            if number != lost:
                drive.append((log_ns, TOPIC[kind], packet))
        return write_messages(tmp_path_factory.mktemp("video") / "bag", drive)

    return write


def localized(bag: Path, street: Path, frames: int = FRAMES) -> list[Estimate]:
    """The estimates of the first frames of a drive."""
    estimates: list[Estimate] = []
    session = Session(Localizer(Config(map=str(street / "map"), threads=1)))
    with BagReader(bag) as reader:
        for event in drive_events(reader):
            estimates += session.push(event)
            if len(estimates) >= frames:
                break
    return estimates[:frames]


@pytest.fixture(scope="module")
def of_images(street: Path) -> list[Estimate]:
    return localized(street / "bag", street)


def images_of(reader: BagReader, every: int = 1) -> list[ImageEvent]:
    events = reader.events(parts=("image",), every=every)
    return [event for event in events if isinstance(event, ImageEvent)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "codec", "b_frames"),
    [(topics.FFMPEG_PACKET, "h264", False), (topics.COMPRESSED_VIDEO, "hevc", True)],
    ids=["ffmpeg h264", "foxglove h265 with B-frames"],
)
def test_the_poses_are_those_of_the_images(
    kind: str,
    codec: str,
    b_frames: bool,
    transcode: Transcode,
    street: Path,
    of_images: list[Estimate],
) -> None:
    found = localized(transcode(kind, codec, b_frames), street)
    assert [e.stamp_ns for e in found] == [e.stamp_ns for e in of_images]
    for ours, theirs in zip(found, of_images, strict=True):
        assert ours.ok and theirs.ok, ours.message
        assert ours.T_map_base is not None and theirs.T_map_base is not None
        assert se3.distance_m(ours.T_map_base, theirs.T_map_base) < MAX_DIFFERENCE_M
        assert se3.angle_deg(ours.T_map_base, theirs.T_map_base) < MAX_DIFFERENCE_DEG


@pytest.mark.slow
def test_a_lost_packet_fails_frames_by_name_and_the_drive_goes_on(
    transcode: Transcode, street: Path
) -> None:
    found = localized(transcode(topics.COMPRESSED_VIDEO, "h264", lost=3), street, frames=11)
    reasons = [e.reason.value for e in found]
    assert reasons == ["ok"] * 3 + ["bad_image"] * 6 + ["ok"] * 2  # a key frame every 10
    assert "was lost" in found[3].message and "next key frame" in found[4].message


@pytest.mark.slow
@pytest.mark.parametrize("b_frames", [False, True])
def test_images_can_be_read_once_more_in_any_order(b_frames: bool, transcode: Transcode) -> None:
    """As overlays and recordings for the viewer need them."""
    with BagReader(transcode(topics.FFMPEG_PACKET, "hevc", b_frames)) as reader:
        first = images_of(reader)
        assert [event.stamp_ns for event in images_of(reader, every=3)] == [
            event.stamp_ns for event in first[::3]
        ]
        for event in (*first[::2], first[12], first[1], *first[::-5]):
            again = reader.image(event.stamp_ns)
            assert again is not None
            assert np.array_equal(again.image_rgb, event.image_rgb)
        assert reader.image(1) is None


@pytest.mark.slow
def test_a_map_is_built_of_the_images_of_a_video(transcode: Transcode, street: Path) -> None:
    (drive,) = read_drives([transcode(topics.COMPRESSED_VIDEO, "h264")])
    (same,) = read_drives([street / "bag"])
    pairs = zip(drive.read_images(), same.read_images(), strict=True)
    for coded, image in pairs:
        assert coded.stamp_ns == image.stamp_ns
        difference = coded.decode().astype(float) - image.decode()
        assert np.abs(difference).mean() < 6.0


@pytest.mark.slow
def test_without_pyav_one_line_says_what_to_install(
    transcode: Transcode, street: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bag = transcode(topics.FFMPEG_PACKET, "h264")
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"need PyAV: pip install 'pixloc_ros\[video\]'"):
        BagReader(bag)
    words = ["replay", bag, "--map", street / "map", "--output", tmp_path / "run"]
    run = CliRunner().invoke(main.build(), [str(word) for word in words])
    assert run.exit_code == 1


# --- written by us --------------------------------------------------------------------------------


def smooth_image(index: int, width: int, height: int) -> np.ndarray:
    """A picture that compresses well; each is another."""
    coarse = np.random.default_rng(3).integers(0, 255, (6, 8, 3), np.uint8)
    return np.roll(cv2.resize(coarse, (width, height)), 3 * index, axis=1)


def write_smooth_drive(folder: Path, width: int, height: int) -> Path:
    meta = write_drive(folder)
    content = json.loads(meta.read_text())
    for index, entry in enumerate(content["images"]):
        entry |= {"width": width, "height": height}
        picture = smooth_image(index, width, height)[..., ::-1]
        cv2.imwrite(str(folder / "images" / entry["file"]), picture)
    meta.write_text(json.dumps(content))
    return meta


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("size", [(96, 64), (95, 63)])
def test_a_bag_is_written_as_video_and_read_as_its_images(
    codec: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Of odd sizes too, as those of KITTI."""
    meta = write_smooth_drive(tmp_path / "drive", *size)
    words = ["bag", "create", "--images", meta.parent / "images", "--meta", meta, "--gnss", "none"]
    words += ["--output", tmp_path / "bag", "--video", codec]
    done = CliRunner().invoke(main.build(), [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "/image/ffmpeg" in done.output
    drive = read_posed_images(meta, meta.parent / "images")
    with BagReader(tmp_path / "bag") as reader:
        images = list(reader.events(parts=("image",)))
        assert [event.stamp_ns for event in images] == drive.stamps_ns.tolist()
        for event, file in zip(images, drive.files, strict=True):
            assert isinstance(event, ImageEvent)
            wanted = image_files.read(file)
            assert wanted is not None
            assert np.abs(event.image_rgb.astype(int) - wanted).mean() < 6.0


def test_damage_in_a_packet_of_h265_is_noticed_by_its_hash() -> None:
    encoder, decoder = VideoEncoder("h265"), VideoDecoder()
    told = []
    for i in range(6):
        data = bytearray(encoder.encode(smooth_image(i, 96, 64)))
        if i == 3:
            data[len(data) // 2] ^= 0x55
        packet = messages.video_packet(1 + i, "cam", encoder.encoding, bytes(data))
        told += [isinstance(event, ImageEvent) for event in decoder.take(packet, 1 + i)]
    assert told[:3] == [True] * 3 and not any(told[3:]), told
