"""Which images of a drive become keyframes: some way apart, the sharpest of each stretch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.progress import Progress
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.build.work_folder import writing
from pixloc_ros.maps.files.recorded_drive import (
    RecordedDrive,
    RecordedImage,
    RecordedOdometry,
    RgbImage,
)

FLOW_SIDE_PX = 320  # longer side of the images in which motion is measured
SHARPNESS_SIDE_PX = 640
STILL_PX = 0.25  # median motion of a camera that stands still, at FLOW_SIDE_PX
STILL_SHARE = 0.05  # of the spacing: odometry that moves by less is noise


@dataclass(frozen=True, slots=True)
class KeyframeImage:
    """One chosen image, as a file of the work folder."""

    drive: int
    camera_name: str
    stamp_ns: int
    name: str  # path below the folder of images


@dataclass(frozen=True, slots=True)
class UncoveredSpan:
    """Images in a row that are left out, because odometry does not cover them."""

    drive: str
    images: int
    where: str  # relative to the odometry
    first_s: float  # of the images, since the first image of the drive
    last_s: float

    def __str__(self) -> str:
        return f"{self.images} {self.where} ({self.first_s:.1f} to {self.last_s:.1f} s)"


@dataclass(frozen=True, slots=True)
class ChosenFrames:
    """Keyframes in order of drive and stamp, and how many images there were."""

    keyframes: tuple[KeyframeImage, ...]
    images: int
    unreadable: int
    uncovered: tuple[UncoveredSpan, ...]


class ImageProgress(Protocol):
    """How far a camera has come, in units of one keyframe to the next."""

    def at(self, stamp_ns: int, grey: NDArray[np.uint8]) -> float | None:
        """The way at an image; None where it is not known."""


def choose_frames(
    drives: Sequence[RecordedDrive], folder: Path, config: MappingConfig, progress: Progress
) -> ChosenFrames:
    """Write the keyframes of all drives below a folder, or take those of an interrupted build.

    Raises MapError where fewer than two images can be used, and where they cannot be written.
    """
    index = folder / "frames.json"
    key = repr([drive.identity for drive in drives]) + repr(_choice(config))
    if (known := _read_index(index, key)) is not None:
        return known
    keyframes: list[KeyframeImage] = []
    counts = _Counts()
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for number, drive in enumerate(drives):
            keyframes += _choose_of_drive(number, drive, folder, config, progress, counts)
    if len(keyframes) < 2:
        raise MapError(f"{len(keyframes)} keyframe(s) of {counts.images} images: {counts.why()}")
    keyframes.sort(key=lambda k: (k.drive, k.stamp_ns, k.camera_name))
    chosen = ChosenFrames(
        tuple(keyframes), counts.images, counts.unreadable, tuple(counts.uncovered)
    )
    write_text(index, json.dumps({"key": key, **asdict(chosen)}))
    return chosen


@dataclass(slots=True)
class _Counts:
    images: int = 0
    unreadable: int = 0
    problem: str = ""  # of the last unreadable one
    uncovered: list[UncoveredSpan] = field(default_factory=list)
    outside_s: float = 0.0  # how far the farthest of these is before or after all odometry

    def why(self) -> str:
        """Describe why there are too few keyframes, and the remedy."""
        reasons = []
        if self.unreadable:
            reasons.append(f"{self.unreadable} of them cannot be used: {self.problem}")
        if self.uncovered:
            reasons.append(
                f"odometry does not cover {sum(s.images for s in self.uncovered)} of them, up to "
                f"{self.outside_s:.1f} s before or after it: do both have the same clock?"
            )
        return "; ".join(reasons) or "does the vehicle move?"


@dataclass(slots=True)
class _StretchImage:
    """An image, and the stretch of the way that its camera is on."""

    stretch: int
    sharpness: float
    stamp_ns: int
    image_rgb: RgbImage


def _choose_of_drive(
    number: int,
    drive: RecordedDrive,
    folder: Path,
    config: MappingConfig,
    progress: Progress,
    counts: _Counts,
) -> Iterator[KeyframeImage]:
    """Write the sharpest image of every stretch that a camera is on."""
    images = progress(drive.read_images(), f"Choosing keyframes of {drive.name}", drive.image_count)
    best: dict[str, _StretchImage] = {}
    for camera, image in _located_images(drive, images, config, counts):
        before = best.get(camera)
        if before is not None and before.stretch != image.stretch:
            yield _write(number, camera, before, folder)
            before = None
        if before is None or image.sharpness > before.sharpness:
            best[camera] = image
    for camera, image in best.items():
        yield _write(number, camera, image, folder)


def _located_images(
    drive: RecordedDrive, images: Iterable[RecordedImage], config: MappingConfig, counts: _Counts
) -> Iterator[tuple[str, _StretchImage]]:
    """Yield the cameras' images whose stretch is known, and count the others."""
    ways: dict[str, ImageProgress] = {c.name: _progress_of(drive, config) for c in drive.cameras}
    sizes = {c.name: c.camera for c in drive.cameras}
    first_ns: int | None = None
    uncovered_ns: list[int] = []
    for image in images:
        counts.images += 1
        first_ns = image.stamp_ns if first_ns is None else first_ns
        try:
            image_rgb = _of_size(image.decode(), sizes[image.camera_name])
        except DataError as error:
            counts.unreadable += 1
            counts.problem = str(error)
            continue
        grey = np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        way = ways[image.camera_name].at(image.stamp_ns, grey)
        if way is None:
            uncovered_ns.append(image.stamp_ns)
            continue
        found = _StretchImage(int(way), _sharpness(grey), image.stamp_ns, image_rgb)
        yield image.camera_name, found
    if first_ns is not None and drive.odometry is not None:
        counts.uncovered += uncovered_spans(drive.name, drive.odometry, uncovered_ns, first_ns)
        counts.outside_s = max(counts.outside_s, _outside_s(drive.odometry, uncovered_ns))


def uncovered_spans(
    drive: str, odometry: RecordedOdometry, uncovered_ns: Sequence[int], start_ns: int
) -> list[UncoveredSpan]:
    """Group the stamps of uncovered images by the gap of the odometry that they are in.

    start_ns: of the drive.
    """
    stamps_ns = np.sort(np.array(uncovered_ns, np.int64))
    next_pose = np.searchsorted(odometry.stamps_ns, stamps_ns)
    where = {0: "before it begins", len(odometry.stamps_ns): "after it ends"}
    spans = []
    for index in np.unique(next_pose).tolist():
        own_s = (stamps_ns[next_pose == index] - start_ns) * 1e-9
        span = where.get(index, "in a gap or a jump of it")
        spans.append(UncoveredSpan(drive, len(own_s), span, float(own_s[0]), float(own_s[-1])))
    return spans


def _outside_s(odometry: RecordedOdometry, stamps_ns: Sequence[int]) -> float:
    """How long before or after all odometry the farthest of some stamps is."""
    first_ns, last_ns = odometry.stamps_ns[[0, -1]].tolist()
    return max((max(first_ns - t, t - last_ns, 0) for t in stamps_ns), default=0) * 1e-9


def _of_size(image_rgb: RgbImage, camera: Camera) -> RgbImage:
    height, width = image_rgb.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise DataError(f"an image is {width}x{height}, calibrated {camera.width}x{camera.height}")
    return image_rgb


def _write(drive: int, camera: str, chosen: _StretchImage, folder: Path) -> KeyframeImage:
    name = f"{drive}/{camera or 'camera'}/{chosen.stamp_ns}.jpg"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_files.encode(chosen.image_rgb, jpeg_quality=image_files.IMAGE_QUALITY))
    return KeyframeImage(drive, camera, chosen.stamp_ns, name)


def _sharpness(grey: NDArray) -> float:
    """Variance of the Laplacian of a reduced image."""
    return float(cv2.Laplacian(_reduced(grey, SHARPNESS_SIDE_PX), cv2.CV_32F).var())


def _reduced(grey: NDArray, side_px: int) -> NDArray:
    factor = min(1.0, side_px / max(grey.shape))
    return cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _progress_of(drive: RecordedDrive, config: MappingConfig) -> ImageProgress:
    if drive.odometry is not None:
        return OdometryProgress(drive.odometry, config)
    return FlowProgress(config)


class OdometryProgress:
    """The way by odometry: metres and turns in units of a keyframe's spacing."""

    def __init__(self, odometry: RecordedOdometry, config: MappingConfig) -> None:
        self._odometry = odometry
        self._way = _way_along(odometry, config)

    def at(self, stamp_ns: int, grey: NDArray[np.uint8]) -> float | None:
        """The way at a stamp; None outside the odometry."""
        if not self._odometry.covers(np.array([stamp_ns], np.int64))[0]:
            return None
        start_ns = self._odometry.stamps_ns[0]
        return float(np.interp(stamp_ns - start_ns, self._odometry.stamps_ns - start_ns, self._way))


def _way_along(odometry: RecordedOdometry, config: MappingConfig) -> NDArray[np.float64]:
    """(N,) rising; noise of a vehicle at rest is no way, as only larger steps count."""
    T, turn_rad = odometry.T_odom_base, np.deg2rad(config.keyframe_turn_deg)
    way, last = np.zeros(len(T)), 0
    for i in range(1, len(T)):
        moved = float(np.linalg.norm(T[i, :3, 3] - T[last, :3, 3])) / config.keyframe_spacing_m
        cosine = (np.trace(T[last, :3, :3].T @ T[i, :3, :3]) - 1) / 2
        step = max(moved, float(np.arccos(np.clip(cosine, -1, 1))) / turn_rad)
        new_epoch = odometry.epoch[i] != odometry.epoch[i - 1]
        counts = step > STILL_SHARE or new_epoch
        way[i] = way[i - 1] + (1.0 if new_epoch else step if counts else 0.0)
        last = i if counts else last
    return way


class FlowProgress:
    """The way by the motion in the image, of corners that are followed from image to image."""

    def __init__(self, config: MappingConfig) -> None:
        self._share = config.keyframe_flow_share
        self._before: NDArray[np.uint8] | None = None
        self._way = 0.0

    def at(self, stamp_ns: int, grey: NDArray[np.uint8]) -> float | None:
        """The way at an image, which follows the one of the last call."""
        now = np.asarray(_reduced(grey, FLOW_SIDE_PX), np.uint8)
        if self._before is not None:
            flow_px = median_flow_px(self._before, now)
            if flow_px < STILL_PX:
                return self._way  # compared with the same image again: slow motion adds up
            self._way += flow_px / (self._share * now.shape[1])
        self._before = now
        return self._way


def median_flow_px(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """How far corners have moved between two grey images; infinite where they are lost."""
    corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 8)
    if corners is None:
        return 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    good = found.ravel() == 1
    if good.sum() < 10:
        return float(max(before.shape))
    return float(np.median(np.linalg.norm((moved - corners)[good, 0], axis=-1)))


def _choice(config: MappingConfig) -> tuple[float, ...]:
    return config.keyframe_spacing_m, config.keyframe_turn_deg, config.keyframe_flow_share


def _read_index(path: Path, key: str) -> ChosenFrames | None:
    try:
        content = json.loads(path.read_text())
        if content.pop("key") != key:
            return None
        keyframes = tuple(KeyframeImage(**entry) for entry in content.pop("keyframes"))
        uncovered = tuple(UncoveredSpan(**entry) for entry in content.pop("uncovered"))
        return ChosenFrames(keyframes, uncovered=uncovered, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
