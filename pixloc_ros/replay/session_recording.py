"""Which frames of a drive are recorded for an update of the map, and what is kept of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pixloc_ros.common.image_files import Image
from pixloc_ros.errors import DataError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.session_folder import FrameEntry, SessionFolder, SessionHeader, numbers
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import CameraEntry
from pixloc_ros.maps.verified_frames import apart
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.session import Answer
from pixloc_ros.types import Estimate, Frame

SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png"}  # by the first bytes of a file


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """An accepted frame that is to be recorded."""

    answer: Answer
    frame: Frame
    T_map_base: Matrix  # (4, 4)
    images: int  # of the drive so far

    @property
    def T_map_cam(self) -> Matrix:
        """(4, 4) where the camera was."""
        return self.T_map_base @ self.frame.T_base_cam

    def image(self) -> Image | bytes:
        """RGB (H, W, 3), or the JPEG or PNG that it came as."""
        event = self.answer.group.images[self.frame.camera_name]
        encoded = event.encoded() if isinstance(event, ImageEvent) else None
        return encoded if encoded and encoded[:2] in SUFFIXES else self.frame.image_rgb

    def entry(self, image: Image | bytes) -> FrameEntry:
        """What is stored beside the image."""
        estimate, frame = self.answer.estimate, self.frame
        assert estimate.covariance is not None and estimate.alignment is not None  # accepted
        suffix = SUFFIXES[image[:2]] if isinstance(image, bytes) else ".jpg"
        return FrameEntry(
            image=f"{frame.camera_name}{estimate.stamp_ns}{suffix}",
            stamp_ns=estimate.stamp_ns,
            camera_name=frame.camera_name,
            camera=CameraEntry.of(frame.camera),
            T_map_base=numbers(self.T_map_base),
            T_base_cam=numbers(frame.T_base_cam),
            covariance=numbers(estimate.covariance),
            wrong_probability=estimate.wrong_probability,
            inlier_share=estimate.alignment.inlier_share,
            images=self.images,
        )


class FrameChooser:
    """Chooses accepted frames that are some way apart; the last one taken is remembered."""

    def __init__(self, spacing_m: float) -> None:
        self._spacing_m = spacing_m
        self._images = 0
        self._last: Matrix | None = None  # T_map_cam

    def choose(self, answer: Answer) -> RecordedFrame | None:
        """Return the frame if it is to be recorded; called with all answers of a drive."""
        self._images += 1
        T_map_base, frame = answer.estimate.T_map_base, answer.frame
        if T_map_base is None or frame is None:
            return None
        chosen = RecordedFrame(answer, frame, T_map_base, self._images)
        if self._last is None or apart(self._last, chosen.T_map_cam, self._spacing_m):
            return chosen
        return None

    def took(self, chosen: RecordedFrame) -> None:
        """Measure the way to the next frame from this one."""
        self._last = chosen.T_map_cam


def recorded(
    answers: Iterable[Answer], folder: Path, map_: Map, spacing_m: float
) -> Iterator[Estimate]:
    """Yield the estimates of a drive, whose chosen frames are written to a new session folder.

    Raises DataError where the folder cannot be written.
    """
    session, chooser = SessionFolder(folder, SessionHeader.of(map_)), FrameChooser(spacing_m)
    for answer in answers:
        if (chosen := chooser.choose(answer)) is not None:
            image = chosen.image()
            session.write(chosen.entry(image), image)
            chooser.took(chosen)
        yield answer.estimate


def check_new(folder: Path) -> None:
    """Raise DataError where something is already: sessions are not mixed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty; name a new folder for the session")
