"""Image and CompressedImage messages as RGB arrays, checked before anything is decoded.

Works on any object with the fields of the messages: those of rclpy and those of rosbags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import image_to_cvimage

from pixloc_ros.replay.events import MessageError

MAX_PIXELS = 64_000_000
MAX_COMPRESSED_BYTES = 64_000_000

BYTES_PER_PIXEL = {
    "mono8": 1,
    "mono16": 2,
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    **{f"bayer_{order}8": 1 for order in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{order}16": 2 for order in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}
# OpenCV's types say how many channels there are, not their order; drivers mean these.
ALIASES = {"8UC1": "mono8", "16UC1": "mono16", "8UC3": "bgr8", "8UC4": "bgra8"}


# A calibration is of the sensor's rows and columns, whatever EXIF says about up.
_AS_CALIBRATED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True, slots=True)
class _Packed:
    """The fields of an Image that rosbags reads, with rows that follow each other."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    data: NDArray[np.uint8]


def image_rgb(message: Any) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of a sensor_msgs/Image.

    Raises MessageError where encoding, size, step and length of the data do not fit together.
    """
    encoding = ALIASES.get(message.encoding, message.encoding)
    if encoding not in BYTES_PER_PIXEL:
        raise MessageError("image_encoding", f"image encoding '{encoding}' is not supported")
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * BYTES_PER_PIXEL[encoding]
    data = np.frombuffer(message.data, np.uint8)
    if not 0 < height * width <= MAX_PIXELS:
        raise MessageError("image_size", f"image is {width}x{height} pixels")
    if step < row_bytes:
        raise MessageError("image_step", f"image step {step} is less than {row_bytes} per row")
    if step * height != len(data):
        expected = f"step {step} x height {height}"
        raise MessageError("image_step", f"image has {len(data)} bytes, not {expected}")
    rows = np.ascontiguousarray(data.reshape(height, step)[:, :row_bytes])
    packed = _Packed(height, width, encoding, int(bool(message.is_bigendian)), rows)
    return np.ascontiguousarray(image_to_cvimage(packed, "rgb8"))  # type: ignore[arg-type]


def compressed_image_rgb(message: Any) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of a sensor_msgs/CompressedImage.

    Raises MessageError for data that is cut off, too large, or no picture.
    """
    data = bytes(message.data)
    if not 0 < len(data) <= MAX_COMPRESSED_BYTES:
        raise MessageError("image_size", f"compressed image has {len(data)} bytes")
    # OpenCV fills what is missing with grey instead of failing.
    if data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise MessageError("image_truncated", f"JPEG of {len(data)} bytes has no end")
    image_bgr = _decoded(data)
    if image_bgr is None:
        raise MessageError(
            "image_encoding", f"compressed image of format '{message.format}' cannot be decoded"
        )
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)


def _decoded(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), _AS_CALIBRATED)
    except cv2.error:
        return None
