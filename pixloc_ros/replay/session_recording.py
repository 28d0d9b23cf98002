"""Choose which frames of a drive are recorded for map updates, and what is stored of each."""

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

SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png"}  # by a file's first bytes


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """An accepted frame that is to be recorded."""

    answer: Answer
    frame: Frame
    T_map_base: Matrix  # (4, 4)
    images: int  # number of images of the drive so far

    @property
    def T_map_cam(self) -> Matrix:
        """Pose (4, 4) of the camera."""
        return self.T_map_base @ self.frame.T_base_cam

    def image(self) -> Image | bytes:
        """Return RGB (H, W, 3), or the bytes of the JPEG or PNG file that the image came as."""
        event = self.answer.group.images[self.frame.camera_name]
        encoded = event.encoded() if isinstance(event, ImageEvent) else None
        return encoded if encoded and encoded[:2] in SUFFIXES else self.frame.image_rgb

    def entry(self, image: Image | bytes) -> FrameEntry:
        """Return what is stored beside the image."""
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
    """Chooses accepted frames at some distance from the last one chosen."""

    def __init__(self, spacing_m: float) -> None:
        self._spacing_m = spacing_m
        self._images = 0
        self._last: Matrix | None = None  # T_map_cam

    def choose(self, answer: Answer) -> RecordedFrame | None:
        """Return the frame if it is to be recorded; call it with all answers of a drive."""
        self._images += 1
        T_map_base, frame = answer.estimate.T_map_base, answer.frame
        if T_map_base is None or frame is None:
            return None
        chosen = RecordedFrame(answer, frame, T_map_base, self._images)
        if self._last is None or apart(self._last, chosen.T_map_cam, self._spacing_m):
            return chosen
        return None

    def took(self, chosen: RecordedFrame) -> None:
        """Measure the distance to the next frame from this one."""
        self._last = chosen.T_map_cam


def recorded(
    answers: Iterable[Answer], folder: Path, map_: Map, spacing_m: float
) -> Iterator[Estimate]:
    """Yield the estimates of a drive, and write its chosen frames to a new session folder.

    Raises DataError if the folder cannot be written.
    """
    session, chooser = SessionFolder(folder, SessionHeader.of(map_)), FrameChooser(spacing_m)
    for answer in answers:
        if (chosen := chooser.choose(answer)) is not None:
            image = chosen.image()
            session.write(chosen.entry(image), image)
            chooser.took(chosen)
        yield answer.estimate


def check_new(folder: Path) -> None:
    """Raise DataError if the folder is not empty: sessions are not mixed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty; name a new folder for the session")
