"""Messages of bags to events; what cannot be used raises BadMessage with a code to count by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pixloc_ros.sensors import decoding, topics
from pixloc_ros.sensors.decoding import WITHOUT_ROS, Backend, BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    StaticTransformEvent,
)


def stamp_ns(message: Any) -> int:
    """The stamp of a message's header; raises BadMessage where it was never set."""
    value = decoding.stamp_ns(message.header)
    if value <= 0:
        raise BadMessage("no_stamp", "the header has no stamp")
    return value


def events(part: str, msgtype: str, message: Any, backend: Backend = WITHOUT_ROS) -> list[Event]:
    """The events of one message; only /tf_static has several."""
    if part == "tf_static":
        return [_static_transform(transform, backend) for transform in message.transforms]
    if part in ("gnss_pose", "initialpose"):
        return [_pose(message, "gnss" if part == "gnss_pose" else part, backend)]
    return [_DECODERS[msgtype](message, backend)]


def _image(message: Any, backend: Backend) -> ImageEvent:
    return ImageEvent(
        stamp_ns(message), decoding.image_rgb(message, backend), message.header.frame_id
    )


def _camera_info(message: Any, _: Backend) -> CameraInfoEvent:
    return CameraInfoEvent(stamp_ns(message), decoding.camera(message), message.header.frame_id)


def _odometry(message: Any, backend: Backend) -> OdometryEvent:
    return OdometryEvent(
        stamp_ns(message),
        decoding.pose(message.pose.pose, backend),
        message.header.frame_id,
        message.child_frame_id,
    )


def _fix(message: Any, _: Backend) -> FixEvent:
    values = (message.latitude, message.longitude, message.altitude)
    covariance = decoding.fix_covariance(message)
    status, frame_id = message.status.status, message.header.frame_id
    return FixEvent(stamp_ns(message), *values, covariance, status, frame_id)


def _pose(message: Any, source: str, backend: Backend) -> PoseEvent:
    return PoseEvent(
        stamp_ns(message),
        decoding.pose(message.pose.pose, backend),
        decoding.pose_covariance(message.pose),
        message.header.frame_id,
        source,
    )


def _static_transform(message: Any, backend: Backend) -> StaticTransformEvent:
    T_parent_child = decoding.pose(message.transform, backend)
    return StaticTransformEvent(message.header.frame_id, message.child_frame_id, T_parent_child)


_DECODERS: dict[str, Callable[[Any, Backend], Event]] = {
    topics.IMAGE: _image,
    topics.COMPRESSED_IMAGE: _image,
    topics.CAMERA_INFO: _camera_info,
    topics.ODOMETRY: _odometry,
    topics.NAV_SAT_FIX: _fix,
}
