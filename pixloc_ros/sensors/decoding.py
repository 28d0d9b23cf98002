"""Decode messages to arrays and matrices, and check them. Needs no ROS.

Messages are duck-typed: those of rclpy and those that `rosbags` reads have the same fields. The
results are finite, of plausible size and safe to compute with; anything else raises BadMessage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import message_to_cvimage
from rosbags.image.image import convert_color

from pixloc_ros.common import image_files
from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import sigmas_and_correlations
from pixloc_ros.geometry.se3 import Matrix

Image = NDArray[np.uint8]
Unpack = Callable[[Any], NDArray[Any]]  # converts a packed sensor_msgs/Image to its array

MAX_SIDE_PX = 16_384
MAX_DISTANCE_M = 1e8  # twice around the Earth
MAX_VARIANCE = 1e12  # m^2 or rad^2; senders use larger values for "unknown"
MAX_NAME_LENGTH = 256  # characters of a frame name
UNIT_TOLERANCE = 0.01  # of a quaternion's length

# Bytes per pixel of the supported encodings (sensor_msgs/image_encodings.hpp).
ENCODINGS = {
    **dict.fromkeys(["mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"], 1),
    **dict.fromkeys(["mono16", "bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"], 2),
    **dict.fromkeys(["yuv422", "uyvy", "yuv422_yuy2", "yuyv"], 2),
    **dict.fromkeys(["rgb8", "bgr8"], 3),
    **dict.fromkeys(["rgba8", "bgra8"], 4),
    **dict.fromkeys(["rgb16", "bgr16"], 6),
    **dict.fromkeys(["rgba16", "bgra16"], 8),
}
# OpenCV's types give the number of channels but not their order; drivers mean these.
ALIASES = {"8UC1": "mono8", "16UC1": "mono16", "8UC3": "bgr8", "8UC4": "bgra8"}


class BadMessage(DataError):
    """A message that cannot be used; `reason` is a stable code to count it by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def stamp_ns(header: Any) -> int:
    """Return the stamp of a std_msgs/Header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def unpack(message: Any) -> NDArray[Any]:
    """Return the array of a packed sensor_msgs/Image, colours unchanged."""
    array: NDArray[Any] = message_to_cvimage(message)
    return array


def image_rgb(
    message: Any,
    size: tuple[int, int] | None = None,
    max_pixels: int = image_files.MAX_PIXELS,
    unpack: Unpack = unpack,
) -> Image:
    """Decode a sensor_msgs/Image or CompressedImage to (H, W, 3) RGB. Raises BadMessage.

    size: calibrated width and height, if known; an image of another size is refused by its header,
    before it is decoded.
    max_pixels: the limit if the size is not known.
    unpack: decodes raw images; a node may pass cv_bridge's.
    """
    if hasattr(message, "format"):
        return _decompressed(message, size, max_pixels)
    _check_image(message, size, max_pixels)
    packed = _packed(message)
    image = unpack(packed)
    encoding = packed.encoding
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
        encoding = encoding.replace("16", "8")
    return np.array(convert_color(image, encoding, "rgb8"), np.uint8, order="C")


def camera(message: Any) -> Camera:
    """Return the camera of a sensor_msgs/CameraInfo, with region of interest and binning applied.

    Raises BadMessage if the calibration is missing or impossible.
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
    right, bottom = roi.x_offset + roi.width, roi.y_offset + roi.height
    if right > message.width or bottom > message.height:
        raise BadMessage(
            "camera_info_unusable",
            f"CameraInfo: the region of interest ends at {right}, {bottom}, the sensor at "
            f"{message.width}, {message.height}",
        )
    if roi.width and roi.height:
        full = full.crop([roi.x_offset, roi.y_offset], [roi.width, roi.height])
    binning = max(message.binning_x, 1), max(message.binning_y, 1)
    if binning[0] > full.width or binning[1] > full.height:
        raise BadMessage("camera_info_unusable", f"CameraInfo: binning {binning} leaves no pixels")
    return full if binning == (1, 1) else full.scale([1.0 / binning[0], 1.0 / binning[1]])


def pose(message: Any) -> Matrix:
    """Return the (4, 4) matrix of a geometry_msgs/Pose or Transform.

    Raises BadMessage for NaN, for positions that are not on Earth, and for quaternions that are not
    of unit length, such as the zeros of a message that was never filled in.
    """
    translation = message.position if hasattr(message, "position") else message.translation
    rotation = message.orientation if hasattr(message, "orientation") else message.rotation
    xyz = np.array([translation.x, translation.y, translation.z])
    quat_xyzw = np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    if not (np.isfinite(xyz).all() and np.isfinite(quat_xyzw).all()):
        raise BadMessage("not_finite", f"pose is not finite: {xyz}, {quat_xyzw}")
    if np.abs(xyz).max() > MAX_DISTANCE_M:
        raise BadMessage("too_far", f"position {xyz} is more than {MAX_DISTANCE_M:g} m away")
    length = float(np.hypot.reduce(quat_xyzw))
    if abs(length - 1.0) > UNIT_TOLERANCE:
        raise BadMessage("bad_quaternion", f"quaternion {quat_xyzw} has length {length:g}, not 1")
    return se3.from_quat_xyzw(quat_xyzw, xyz)


def pose_covariance(message: Any) -> Matrix:
    """Return the symmetric (6, 6) covariance of a PoseWithCovariance. Raises BadMessage."""
    return _covariance(message.covariance, 6)


def fix_covariance(message: Any) -> Matrix | None:
    """Return the (3, 3) ENU covariance of a sensor_msgs/NavSatFix in m^2; None if it is unknown.

    It is unknown if the message says so or a value is not finite. Raises BadMessage for a matrix
    that is not a covariance.
    """
    known = message.position_covariance_type and np.isfinite(message.position_covariance).all()
    return _covariance(message.position_covariance, 3) if known else None


def frame_id(name: str) -> str:
    """Return the name of a frame unchanged. Raises BadMessage for an impossible name."""
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise BadMessage("frame_id", f"frame '{name[:40]}' of {len(name)} characters")
    return name


def _covariance(values: Any, size: int) -> Matrix:
    """Check and return a (size, size) covariance, symmetric and positive semi-definite.

    Variances are limited to MAX_VARIANCE.
    """
    covariance = np.array(values, np.float64).reshape(size, size)
    try:
        sigmas, correlation = sigmas_and_correlations(covariance)
    except DataError as error:
        raise BadMessage("bad_covariance", str(error)) from None
    least, axes = np.linalg.eigh(correlation)
    if least[0] < -1e-9:
        correlation = (axes * np.maximum(least, 0.0)) @ axes.T
    elif np.diag(covariance).max() <= MAX_VARIANCE:
        return (covariance + covariance.T) / 2
    sigmas = np.minimum(sigmas, np.sqrt(MAX_VARIANCE))
    result: Matrix = correlation * sigmas * sigmas[:, None]
    return (result + result.T) / 2


def _encoding(message: Any) -> str:
    return ALIASES.get(message.encoding, message.encoding)


def check_size(size: tuple[int, int], wanted: tuple[int, int] | None, max_pixels: int) -> None:
    """Raise BadMessage for an image size that differs from the calibration, or is impossible."""
    width, height = size
    if wanted is not None and size != wanted:
        raise BadMessage(
            "image_size", f"image is {width}x{height}, calibrated for {wanted[0]}x{wanted[1]}"
        )
    if not 0 < min(size) <= max(size) <= MAX_SIDE_PX or width * height > max_pixels:
        raise BadMessage("image_size", f"image of {width}x{height} pixels")


def _check_image(message: Any, wanted: tuple[int, int] | None, max_pixels: int) -> None:
    width, height, step = message.width, message.height, message.step
    if _encoding(message) not in ENCODINGS:
        known = ", ".join([*ENCODINGS, *ALIASES])
        raise BadMessage("image_encoding", f"encoding '{message.encoding}' is not one of {known}")
    check_size((width, height), wanted, max_pixels)
    needed = width * ENCODINGS[_encoding(message)]
    if step < needed:
        raise BadMessage("image_step", f"step is {step} bytes, a row needs {needed}")
    if len(message.data) != step * height:
        raise BadMessage(
            "image_size", f"image holds {len(message.data)} bytes, step * height is {step * height}"
        )


def _packed(message: Any) -> Any:
    """Return the fields of a checked Image, in this machine's byte order and without padding.

    Some decoders ignore padding, or cannot swap bytes with numpy 2.
    """
    encoding = _encoding(message)
    row_bytes = message.width * ENCODINGS[encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    data = np.ascontiguousarray(rows[:, :row_bytes]).reshape(-1)
    native_is_big = sys.byteorder == "big"
    if encoding.endswith("16") and bool(message.is_bigendian) != native_is_big:
        data = data.view(np.uint16).byteswap().view(np.uint8)
    return SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=encoding,
        is_bigendian=native_is_big,
        step=row_bytes,
        data=data,
    )


def _decompressed(message: Any, wanted: tuple[int, int] | None, max_pixels: int) -> Image:
    data = bytes(message.data)
    size = image_files.size_of(data)
    if size is not None:
        check_size(size, wanted, max_pixels)
    # OpenCV fills the missing part of a JPEG with grey instead of failing.
    if data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise BadMessage("image_truncated", f"JPEG of {len(data)} bytes has no end")
    image_rgb = image_files.decode(data, max_pixels)
    if image_rgb is None:
        raise BadMessage("image_undecodable", f"compressed image ('{message.format}') not decoded")
    return image_rgb
