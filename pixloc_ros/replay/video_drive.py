"""A drive from a video file, with a calibration and a GNSS track recorded beside it."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from pixloc_ros.common import foreign_files
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError, one_line
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.posed_images import RELATIVE_START_NS
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.drive_messages import Timed, check_size
from pixloc_ros.sensors.video import MAX_PIXELS, require_decoder

FRAMES = BagOptions()  # its names of frames apply here, too
NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """One line of a track; `time_s` counts from the video's first image."""

    time_s: float
    geodetic: tuple[float, float, float]  # latitude, longitude (degrees) and altitude (m)
    sigma_m: tuple[float, float, float]  # east, north, up


@dataclass(frozen=True, slots=True)
class VideoDrive:
    """A filmed drive: video, calibration, mounting and fixes."""

    video: Path
    camera: Camera
    fixes: tuple[TrackPoint, ...] = ()  # by time, at the vehicle's base
    T_base_cam: Matrix = field(default_factory=se3.base_from_optical)
    every: int = 1  # keep every n-th image

    def messages(self, progress: Progress = silent) -> Iterator[Timed]:
        """Yield stamp, input and message, by stamp; the first stamp is the camera's recording time.

        Raises DataError for a video that cannot be read or whose image size is not the calibrated
        one.
        """
        with _opened(self.video) as film:
            start_ns = _start_ns(film)
            mounting = messages.static_transform(
                start_ns, FRAMES.base_frame, FRAMES.camera_frame, self.T_base_cam
            )
            yield start_ns, "tf_static", mounting
            in_order = self._fixes(start_ns), self._images(film, start_ns, progress)
            yield from heapq.merge(*in_order, key=itemgetter(0))

    def _images(self, film: Any, start_ns: int, progress: Progress) -> Iterator[Timed]:
        count = film.streams.video[0].frames  # 0 if the file does not say
        for index, frame in enumerate(progress(self._frames(film), "reading the video", count)):
            if index % self.every == 0:
                stamp_ns = start_ns + round(frame.time * NS_PER_S)
                yield from self._image(stamp_ns, frame.to_ndarray(format="rgb24"))

    def _frames(self, film: Any) -> Iterator[Any]:
        import av

        try:
            for frame in film.decode(video=0):
                if frame.time is None:
                    raise DataError(f"{self.video} does not say when its images were taken")
                yield frame
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"video {self.video} is damaged: {error.strerror}") from None

    def _image(self, stamp_ns: int, image_rgb: NDArray[np.uint8]) -> Iterator[Timed]:
        check_size(str(self.video), image_rgb, self.camera)
        info = messages.camera_info(stamp_ns, FRAMES.camera_frame, self.camera)
        yield stamp_ns, "camera_info", info
        yield stamp_ns, "image", messages.jpeg_image(stamp_ns, FRAMES.camera_frame, image_rgb)

    def _fixes(self, start_ns: int) -> Iterator[Timed]:
        for fix in self.fixes:
            stamp_ns = start_ns + round(fix.time_s * NS_PER_S)
            sigma_m = np.array(fix.sigma_m)
            message = messages.nav_sat_fix(stamp_ns, FRAMES.gnss_frame, fix.geodetic, sigma_m)
            yield stamp_ns, "gnss_fix", message


def video_size(video: Path) -> tuple[int, int]:
    """Return width and height in pixels. Raises DataError for a video that cannot be read."""
    with _opened(video) as film:
        codec = film.streams.video[0].codec_context
        return codec.width, codec.height


def pinhole(size_px: tuple[int, int], horizontal_fov_deg: float) -> Camera:
    """Return a camera without distortion, whose axis passes through the image's centre."""
    width, height = size_px
    focal = width / 2 / np.tan(np.deg2rad(horizontal_fov_deg) / 2)
    centre = [(width - 1) / 2, (height - 1) / 2]
    return Camera.create("PINHOLE", [width, height], [focal, focal], centre, [])


class _TrackLine(BaseModel):
    time_s: FiniteFloat
    latitude_deg: FiniteFloat = Field(ge=-90, le=90)
    longitude_deg: FiniteFloat = Field(ge=-180, le=180)
    altitude_m: FiniteFloat
    sigma_m: FiniteFloat = Field(3.0, gt=0)  # of an ordinary receiver under open sky

    def point(self) -> TrackPoint:
        geodetic = self.latitude_deg, self.longitude_deg, self.altitude_m
        return TrackPoint(self.time_s, geodetic, (self.sigma_m, self.sigma_m, 2 * self.sigma_m))


def read_track(path: Path) -> tuple[TrackPoint, ...]:
    """Read the fixes of a CSV file with time_s, latitude_deg, longitude_deg, altitude_m, [sigma_m].

    time_s counts from the first image. Raises DataError naming the wrong line.
    """
    lines = foreign_files.read_text(path, DataError).splitlines()
    fixes = []
    for number, row in enumerate(csv.DictReader(lines), 2):
        try:
            fixes.append(_TrackLine.model_validate(row).point())
        except ValidationError as error:
            first = error.errors()[0]
            name, why = ".".join(map(str, first["loc"])), one_line(first["msg"], 200)
            raise DataError(f"{path}, line {number}: {name}: {why}") from None
    if not fixes:
        needed = ", ".join(_TrackLine.model_fields)
        raise DataError(f"{path} has no fixes: expected lines of numbers below a line `{needed}`")
    return tuple(sorted(fixes, key=lambda fix: fix.time_s))


def _opened(video: Path) -> Any:
    """Open a video, to be closed by the caller. Raises DataError for a file that is not a video."""
    require_decoder()
    import av

    try:
        film = av.open(str(video))
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"cannot read video {video}: {error.strerror}") from None
    if not film.streams.video:
        film.close()
        raise DataError(f"{video} contains no video")
    film.streams.video[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return film


def _start_ns(film: Any) -> int:
    """Return the recording time that a video states, else a fixed date: 0 means unset in ROS."""
    try:
        began = datetime.fromisoformat(film.metadata.get("creation_time", ""))
        return round(began.timestamp() * NS_PER_S) or RELATIVE_START_NS
    except (ValueError, OverflowError):
        return RELATIVE_START_NS
