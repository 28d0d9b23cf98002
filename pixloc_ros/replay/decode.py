"""From messages to arrays and matrices, checked at the door. Needs no ROS.

Messages are duck-typed: those of rclpy and those that `rosbags` reads have the same fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import convert_color, message_to_cvimage

from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera

Matrix = NDArray[np.float64]
Image = NDArray[np.uint8]

MAX_SIDE_PX = 16_384
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

# Bytes per pixel of the encodings that can be read (sensor_msgs/image_encodings.hpp).
ENCODINGS = {
    **dict.fromkeys(["mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"], 1),
    **dict.fromkeys(["mono16", "bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"], 2),
    **dict.fromkeys(["yuv422", "uyvy", "yuv422_yuy2", "yuyv"], 2),
    **dict.fromkeys(["rgb8", "bgr8"], 3),
    **dict.fromkeys(["rgba8", "bgra8"], 4),
    **dict.fromkeys(["rgb16", "bgr16"], 6),
    **dict.fromkeys(["rgba16", "bgra16"], 8),
}


class BadMessage(DataError):
    """A message that cannot be used: `reason` is a stable code to count it by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def stamp_ns(header: Any) -> int:
    """Stamp of a std_msgs/Header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def with_rosbags(message: Any) -> NDArray[Any]:
    """Pixels of a checked sensor_msgs/Image as they are, (H, W) or (H, W, C), uint8 or uint16."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    used = rows[:, : message.width * ENCODINGS[message.encoding]]
    packed = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian),
        data=np.ascontiguousarray(used),
    )
    return message_to_cvimage(packed)  # type: ignore[arg-type]


def image_rgb(message: Any, pixels_of: Callable[[Any], NDArray[Any]] = with_rosbags) -> Image:
    """Image (H, W, 3) of a sensor_msgs/Image or CompressedImage.

    pixels_of: decodes a checked Image without changing its colours. Raises BadMessage.
    """
    if hasattr(message, "format"):
        return _decompressed(message)
    _check_image(message)
    pixels, encoding = pixels_of(message), message.encoding
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0)
        encoding = encoding.replace("16", "8")
    image = convert_color(pixels, encoding, "rgb8")
    return image if image.flags.writeable and image.flags.c_contiguous else image.copy()


def camera(message: Any) -> Camera:
    """Camera of a sensor_msgs/CameraInfo, with its region of interest and binning applied.

    Raises BadMessage for a calibration that is missing or impossible.
    """
    try:
        full = Camera.from_ros(
            message.distortion_model,
            message.width,
            message.height,
            [float(value) for value in message.k],
            [float(value) for value in message.d],
        )
    except CameraError as error:
        raise BadMessage("camera_info_unusable", f"CameraInfo: {error}") from None
    roi = message.roi
    if roi.width and roi.height:
        full = full.crop([roi.x_offset, roi.y_offset], [roi.width, roi.height])
    binning = [1.0 / max(message.binning_x, 1), 1.0 / max(message.binning_y, 1)]
    return full if binning == [1.0, 1.0] else full.scale(binning)


def pose(
    message: Any, to_matrix: Callable[[Sequence[float], Sequence[float]], Matrix] | None = None
) -> Matrix:
    """(4, 4) of a geometry_msgs/Pose or Transform.

    to_matrix: from quat_xyzw and a translation. Raises BadMessage for NaN and quaternions that are
    not of unit length; all zero, as in a message that was never filled in, is one of them.
    """
    translation = message.position if hasattr(message, "position") else message.translation
    rotation = message.orientation if hasattr(message, "orientation") else message.rotation
    xyz = [translation.x, translation.y, translation.z]
    quat_xyzw = [rotation.x, rotation.y, rotation.z, rotation.w]
    if not np.isfinite([*xyz, *quat_xyzw]).all():
        raise BadMessage("not_finite", f"pose is not finite: {xyz}, {quat_xyzw}")
    length = float(np.linalg.norm(quat_xyzw))
    if abs(length - 1.0) > 0.01:
        raise BadMessage("bad_quaternion", f"quaternion {quat_xyzw} has length {length:g}, not 1")
    return (to_matrix or se3.from_quat_xyzw)(quat_xyzw, xyz)


def pose_covariance(message: Any) -> Matrix:
    """(6, 6) of a geometry_msgs/PoseWithCovariance."""
    return np.asarray(message.covariance, np.float64).reshape(6, 6)


def fix_covariance(message: Any) -> Matrix | None:
    """(3, 3) ENU of a sensor_msgs/NavSatFix in m^2; None when its type says unknown."""
    if not message.position_covariance_type:
        return None
    return np.asarray(message.position_covariance, np.float64).reshape(3, 3)


def _check_image(message: Any) -> None:
    width, height, step = message.width, message.height, message.step
    if message.encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise BadMessage("image_encoding", f"encoding '{message.encoding}' is not one of {known}")
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise BadMessage("image_size", f"image of {width}x{height} pixels")
    needed = width * ENCODINGS[message.encoding]
    if step < needed:
        raise BadMessage("image_step", f"step is {step} bytes, a row needs {needed}")
    if len(message.data) != step * height:
        raise BadMessage(
            "image_size", f"image holds {len(message.data)} bytes, step * height is {step * height}"
        )


def _decompressed(message: Any) -> Image:
    data = np.frombuffer(message.data, np.uint8)
    if bytes(data[:2]) == _JPEG_START and _JPEG_END not in bytes(data[-1024:]):
        raise BadMessage("image_truncated", "compressed image ends before its JPEG does")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image_bgr = cv2.imdecode(data, flags) if len(data) else None
    if image_bgr is None:
        raise BadMessage("image_undecodable", f"compressed image ('{message.format}') not decoded")
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
