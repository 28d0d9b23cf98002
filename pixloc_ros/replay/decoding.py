"""Messages to events; what cannot be used raises MessageError with a code to count by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pixloc_ros.errors import CameraError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.replay import topics
from pixloc_ros.replay.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    ImageEvent,
    MessageError,
    OdometryEvent,
    PoseEvent,
    StaticTransformEvent,
)
from pixloc_ros.replay.images import compressed_image_rgb, image_rgb

NS_PER_S = 1_000_000_000
UNIT_TOLERANCE = 0.01
COVARIANCE_UNKNOWN = 0  # NavSatFix.position_covariance_type


def stamp_ns(message: Any) -> int:
    """The stamp of a message's header; raises MessageError where it was never set."""
    stamp = message.header.stamp
    value = stamp.sec * NS_PER_S + stamp.nanosec
    if value <= 0:
        raise MessageError("no_stamp", "the header has no stamp")
    return value


def camera(message: Any) -> Camera:
    """The camera of a sensor_msgs/CameraInfo, with its region of interest and binning applied.

    Raises MessageError for a calibration that is missing or cannot be.
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
        raise MessageError("camera_info_unusable", str(error)) from None
    roi = message.roi
    if roi.width and roi.height:
        full = full.crop([roi.x_offset, roi.y_offset], [roi.width, roi.height])
    binning = [1.0 / max(message.binning_x, 1), 1.0 / max(message.binning_y, 1)]
    return full if binning == [1.0, 1.0] else full.scale(binning)


def pose(position: Any, quaternion: Any, what: str) -> Matrix:
    """(4, 4) of a position and a quaternion message.

    Raises MessageError, naming what it is of, for NaN and for quaternions not of unit length.
    """
    xyz = np.array([position.x, position.y, position.z])
    quat_xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    if not (np.isfinite(xyz).all() and np.isfinite(quat_xyzw).all()):
        raise MessageError(f"{what}_not_finite", f"{what} holds a value that is not finite")
    norm = float(np.linalg.norm(quat_xyzw))
    if abs(norm - 1.0) > UNIT_TOLERANCE:
        raise MessageError(f"{what}_quaternion", f"{what} has a quaternion of norm {norm:.3g}")
    return se3.from_quat_xyzw(quat_xyzw, xyz)


def events(part: str, msgtype: str, message: Any) -> list[Event]:
    """The events of one message; only /tf_static has several."""
    if part == "tf_static":
        return [_static_transform(transform) for transform in message.transforms]
    if part in ("gnss_pose", "initialpose"):
        return [_pose(message, "gnss" if part == "gnss_pose" else part)]
    return [_DECODERS[msgtype](message)]


def _image(message: Any) -> ImageEvent:
    return ImageEvent(stamp_ns(message), image_rgb(message), message.header.frame_id)


def _compressed_image(message: Any) -> ImageEvent:
    return ImageEvent(stamp_ns(message), compressed_image_rgb(message), message.header.frame_id)


def _camera_info(message: Any) -> CameraInfoEvent:
    return CameraInfoEvent(stamp_ns(message), camera(message), message.header.frame_id)


def _odometry(message: Any) -> OdometryEvent:
    T_odom_base = pose(message.pose.pose.position, message.pose.pose.orientation, "odometry")
    return OdometryEvent(
        stamp_ns(message), T_odom_base, message.header.frame_id, message.child_frame_id
    )


def _fix(message: Any) -> FixEvent:
    values = (message.latitude, message.longitude, message.altitude)
    if not np.isfinite(values).all():
        raise MessageError("gnss_not_finite", f"GNSS fix is at {values}")
    known = message.position_covariance_type != COVARIANCE_UNKNOWN
    covariance = np.array(message.position_covariance, dtype=np.float64).reshape(3, 3)
    return FixEvent(
        stamp_ns(message), *values, covariance if known else None, message.status.status
    )


def _pose(message: Any, source: str) -> PoseEvent:
    stated = message.pose.pose
    T_map_base = pose(stated.position, stated.orientation, source)
    covariance = np.array(message.pose.covariance, dtype=np.float64).reshape(6, 6)
    return PoseEvent(stamp_ns(message), T_map_base, covariance, message.header.frame_id, source)


def _static_transform(transform: Any) -> StaticTransformEvent:
    T = pose(transform.transform.translation, transform.transform.rotation, "static_transform")
    return StaticTransformEvent(transform.header.frame_id, transform.child_frame_id, T)


_DECODERS: dict[str, Callable[[Any], Event]] = {
    topics.IMAGE: _image,
    topics.COMPRESSED_IMAGE: _compressed_image,
    topics.CAMERA_INFO: _camera_info,
    topics.ODOMETRY: _odometry,
    topics.NAV_SAT_FIX: _fix,
}
