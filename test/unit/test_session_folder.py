"""Recorded sessions: which frames, whole or not at all, bounded, never in the way."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.scene import CAMERA, HEIGHT, WIDTH
from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.maps.files.session_folder import (
    HEADER_FILE,
    SessionFolder,
    SessionHeader,
    SessionStore,
    read_session,
)
from pixloc_ros.replay.session_recording import FrameChooser, RecordedFrame, check_new
from pixloc_ros.ros.session_recorder import MAX_WAITING, SessionRecorder
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.sensors.image_group import ImageGroup
from pixloc_ros.session import Answer
from pixloc_ros.types import Estimate, Frame, Reason, Status

MAP: Any = SimpleNamespace(sha256="a" * 64, keyframe_T_map_cam=np.eye(4)[None])
PATIENCE_S = 60.0
SMALL = np.random.default_rng(0).integers(0, 255, (13, 20, 3), dtype=np.uint8)
IMAGE = cv2.resize(SMALL, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def answer(x_m: float, accepted: bool = True, encoded: bytes | None = None) -> Answer:
    """What came of a frame at some metres."""
    stamp_ns = 1_700_000_000_000_000_000 + round(1e9 * x_m)
    frame = Frame(IMAGE, CAMERA, stamp_ns, np.eye(4))
    event = ImageEvent(stamp_ns, "camera", lambda size: IMAGE, encoded=lambda: encoded)
    T_map_base = np.eye(4)
    T_map_base[0, 3] = x_m
    estimate = Estimate(Status.FAILED, Reason.NO_PRIOR, "", stamp_ns)
    if accepted:
        alignment: Any = SimpleNamespace(inlier_share=0.7)
        estimate = Estimate(
            Status.OK,
            Reason.OK,
            "",
            stamp_ns,
            T_map_base=T_map_base,
            covariance=np.eye(6) * 1e-4,
            alignment=alignment,
            wrong_probability=1e-3,
        )
    return Answer(estimate, ImageGroup({"": event}, 0), "camera", 0, frame)


def chosen(x_m: float, encoded: bytes | None = None) -> RecordedFrame:
    frame = FrameChooser(1.0).choose(answer(x_m, encoded=encoded))
    assert frame is not None
    return frame


def write(session: SessionFolder, x_m: float, encoded: bytes | None = None) -> int:
    frame = chosen(x_m, encoded)
    image = frame.image()
    return session.write(frame.entry(image), image)


def test_accepted_frames_some_way_apart_are_chosen():
    chooser, places = FrameChooser(1.0), []
    for x_m, accepted in ((0.0, False), (0.1, True), (0.6, True), (1.2, False), (1.3, True)):
        if (frame := chooser.choose(answer(x_m, accepted))) is not None:
            places.append((x_m, frame.images))
            chooser.took(frame)
    assert places == [(0.1, 2), (1.3, 5)]


def test_written_frames_are_read_again_in_order(tmp_path):
    session = SessionFolder(tmp_path / "s", SessionHeader.of(MAP))
    jpeg = image_files.encode(IMAGE, jpeg_quality=50)
    for x_m, encoded in ((2.0, jpeg), (1.0, None)):
        write(session, x_m, encoded)
    read = read_session(tmp_path / "s", MAP)
    assert [frame.T_map_base[0, 3] for frame in read.frames] == [1.0, 2.0]
    assert read.frames[0].camera.to_colmap() == CAMERA.to_colmap()
    assert (read.frames[1].read_image() == image_files.decode(jpeg)).all()  # as it came
    assert np.abs(read.frames[0].read_image().astype(int) - IMAGE).mean() < 3
    stored = json.loads(next((tmp_path / "s").glob("17*.json")).read_text())
    assert len(stored["covariance"]) == 36 and stored["inlier_share"] == 0.7


def test_frame_without_its_record_is_not_there(tmp_path):
    session = SessionFolder(tmp_path / "s", SessionHeader.of(MAP))
    write(session, 1.0)
    cv2.imwrite(str(tmp_path / "s" / "1700000009000000000.jpg"), IMAGE)  # as after a power cut
    assert len(read_session(tmp_path / "s", MAP).frames) == 1


def test_oldest_frames_go_for_new_ones_and_nothing_else(tmp_path):
    size = write(SessionFolder(tmp_path / "20250101T000000", SessionHeader.of(MAP)), 0.0)
    (tmp_path / "20250101T000000" / "mine.txt").write_text("not a frame")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "old.json").write_text("{}")
    store = SessionStore(tmp_path, round(2.5 * size))
    session = store.new_session(SessionHeader.of(MAP))
    removed = []
    for x_m in (1.0, 2.0, 3.0):
        frame = chosen(x_m)
        image = frame.image()
        removed.append(store.write(session, frame.entry(image), image))
    assert removed == [0, 1, 1]
    assert len(read_session(session.folder, MAP).frames) == 2
    left = {p.name for p in (tmp_path / "20250101T000000").iterdir()}
    assert left == {"mine.txt", HEADER_FILE}
    assert (tmp_path / "holiday" / "old.json").exists()


def test_localization_never_waits_and_what_is_dropped_is_counted(tmp_path):
    busy, go_on, counts = threading.Event(), threading.Event(), Counter[str]()

    class SlowStore(SessionStore):
        def write(self, *frame: Any) -> int:
            busy.set()
            assert go_on.wait(PATIENCE_S)
            return super().write(*frame)

    recorder = SessionRecorder(
        SlowStore(tmp_path, 10**9),
        SessionHeader.of(MAP),
        1.0,
        lambda name, line: counts.update([name]),
    )
    recorder.offer(answer(0.0))
    assert busy.wait(PATIENCE_S)  # it works on that one
    for place in range(1, MAX_WAITING + 4):
        recorder.offer(answer(float(place)))
    assert counts == {"session.dropped": 3}
    go_on.set()
    recorder.close(PATIENCE_S)
    assert counts["session.recorded"] == MAX_WAITING + 1


def test_disk_that_cannot_be_written_is_counted(tmp_path):
    (tmp_path / "file").write_text("in the way")
    lines = []
    store = SessionStore(tmp_path / "file", 10**9)
    recorder = SessionRecorder(store, SessionHeader.of(MAP), 1.0, lambda *what: lines.append(what))
    recorder.offer(answer(0.0))
    recorder.close(PATIENCE_S)
    assert [name for name, _ in lines] == ["session.failed"] and "cannot write" in lines[0][1]


def damaged(folder: Path, what: str) -> None:
    record = next(folder.glob("17*.json"))
    content = json.loads(record.read_text())
    if what == "no pose":
        content["T_map_base"][0] = 7.0
    if what == "leads elsewhere":
        content["image"] = "../../secret.jpg"
    if what == "unknown":
        content["colour"] = "red"
    record.write_text(json.dumps(content) if what != "half" else record.read_text()[:99])


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("no pose", "it has no pose"),
        ("leads elsewhere", "is not the name of a file below"),
        ("unknown", r"damaged \(colour"),
        ("half", "cannot read"),
    ],
)
def test_damaged_sessions_are_refused(tmp_path, what, complaint):
    write(SessionFolder(tmp_path / "s", SessionHeader.of(MAP)), 1.0)
    damaged(tmp_path / "s", what)
    with pytest.raises(MapError, match=complaint):
        read_session(tmp_path / "s", MAP)


def test_what_is_no_session_of_this_map_is_refused(tmp_path):
    write(SessionFolder(tmp_path / "s", SessionHeader.of(MAP)), 1.0)
    other: Any = SimpleNamespace(sha256="b", keyframe_T_map_cam=np.diag([1.0, -1, -1, 1])[None])
    with pytest.raises(MapError, match="recorded on another map"):
        read_session(tmp_path / "s", other)
    with pytest.raises(MapError, match=r"is no session folder \(no session\.json\)"):
        read_session(tmp_path, MAP)
    with pytest.raises(DataError, match="not empty"):
        check_new(tmp_path / "s")
