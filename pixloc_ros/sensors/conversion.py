"""The one door for messages, of the live node and of bags: an event, or a refusal with a reason."""

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
    RejectedEvent,
    StaticTransformEvent,
)


def stamp_ns(message: Any) -> int:
    """The stamp of a message's header; raises BadMessage where it was never set."""
    value = decoding.stamp_ns(message.header)
    if value <= 0:
        raise BadMessage("no_stamp", "the header has no stamp")
    return value


def frame_id(message: Any) -> str:
    """The frame of a message's header; raises BadMessage for what no frame is called."""
    return decoding.frame_id(message.header.frame_id)


def events(part: str, msgtype: str, message: Any, backend: Backend = WITHOUT_ROS) -> list[Event]:
    """The events of one message; only /tf_static has several, and a RejectedEvent for each bad one.

    Raises BadMessage with a code to count by, and nothing else: `unforeseen` is what no check of
    ours has caught, and worth a report.
    """
    try:
        if part == "tf_static":
            return [_static_transform(transform, backend) for transform in message.transforms]
        if part in ("gnss_pose", "initialpose"):
            return [_pose(message, "gnss" if part == "gnss_pose" else part, backend)]
        return [_DECODERS[msgtype](message, backend)]
    except BadMessage:
        raise
    except Exception as error:  # the last net: whatever a stranger sends, the receiver lives
        raise BadMessage("unforeseen", f"{part}: {type(error).__name__}: {error}") from error


def _image(message: Any, backend: Backend) -> ImageEvent:
    return ImageEvent(stamp_ns(message), decoding.image_rgb(message, backend), frame_id(message))


def _camera_info(message: Any, _: Backend) -> CameraInfoEvent:
    return CameraInfoEvent(stamp_ns(message), decoding.camera(message), frame_id(message))


def _odometry(message: Any, backend: Backend) -> OdometryEvent:
    return OdometryEvent(
        stamp_ns(message),
        decoding.pose(message.pose.pose, backend),
        frame_id(message),
        decoding.frame_id(message.child_frame_id),
    )


def _fix(message: Any, _: Backend) -> FixEvent:
    values = (message.latitude, message.longitude, message.altitude)
    covariance = decoding.fix_covariance(message)
    status, antenna = message.status.status, frame_id(message)
    return FixEvent(stamp_ns(message), *values, covariance, status, antenna)


def _pose(message: Any, source: str, backend: Backend) -> PoseEvent:
    return PoseEvent(
        stamp_ns(message),
        decoding.pose(message.pose.pose, backend),
        decoding.pose_covariance(message.pose),
        frame_id(message),
        source,
    )


def _static_transform(message: Any, backend: Backend) -> StaticTransformEvent | RejectedEvent:
    """One of several: those beside a bad one are good."""
    try:
        parent, child = frame_id(message), decoding.frame_id(message.child_frame_id)
        return StaticTransformEvent(parent, child, _rigid(message, parent, child, backend))
    except BadMessage as error:
        at_ns = decoding.stamp_ns(message.header)
        return RejectedEvent(at_ns, "tf_static", error.reason, str(error))


def _rigid(message: Any, parent: str, child: str, backend: Backend) -> Any:
    names = f"transform of '{child}' in '{parent}'"
    if not (parent and child and parent.removeprefix("/") != child.removeprefix("/")):
        raise BadMessage("frame_id", f"{names} names no two frames")
    try:
        return decoding.pose(message.transform, backend)
    except BadMessage as error:
        raise BadMessage(error.reason, f"{names}: {error}") from None


_DECODERS: dict[str, Callable[[Any, Backend], Event]] = {
    topics.IMAGE: _image,
    topics.COMPRESSED_IMAGE: _image,
    topics.CAMERA_INFO: _camera_info,
    topics.ODOMETRY: _odometry,
    topics.NAV_SAT_FIX: _fix,
}
