"""Messages of bags to events; what cannot be used raises BadMessage with a code to count by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pixloc_ros.replay import decode, topics
from pixloc_ros.replay.decode import BadMessage
from pixloc_ros.replay.events import (
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
    value = decode.stamp_ns(message.header)
    if value <= 0:
        raise BadMessage("no_stamp", "the header has no stamp")
    return value


def events(part: str, msgtype: str, message: Any) -> list[Event]:
    """The events of one message; only /tf_static has several."""
    if part == "tf_static":
        return [_static_transform(transform) for transform in message.transforms]
    if part in ("gnss_pose", "initialpose"):
        return [_pose(message, "gnss" if part == "gnss_pose" else part)]
    return [_DECODERS[msgtype](message)]


def _image(message: Any) -> ImageEvent:
    return ImageEvent(stamp_ns(message), decode.image_rgb(message), message.header.frame_id)


def _camera_info(message: Any) -> CameraInfoEvent:
    return CameraInfoEvent(stamp_ns(message), decode.camera(message), message.header.frame_id)


def _odometry(message: Any) -> OdometryEvent:
    return OdometryEvent(
        stamp_ns(message),
        decode.pose(message.pose.pose),
        message.header.frame_id,
        message.child_frame_id,
    )


def _fix(message: Any) -> FixEvent:
    values = (message.latitude, message.longitude, message.altitude)
    if not np.isfinite(values).all():
        raise BadMessage("not_finite", f"GNSS fix at {values}")
    covariance = decode.fix_covariance(message)
    return FixEvent(stamp_ns(message), *values, covariance, message.status.status)


def _pose(message: Any, source: str) -> PoseEvent:
    return PoseEvent(
        stamp_ns(message),
        decode.pose(message.pose.pose),
        decode.pose_covariance(message.pose),
        message.header.frame_id,
        source,
    )


def _static_transform(message: Any) -> StaticTransformEvent:
    T_parent_child = decode.pose(message.transform)
    return StaticTransformEvent(message.header.frame_id, message.child_frame_id, T_parent_child)


_DECODERS: dict[str, Callable[[Any], Event]] = {
    topics.IMAGE: _image,
    topics.COMPRESSED_IMAGE: _image,
    topics.CAMERA_INFO: _camera_info,
    topics.ODOMETRY: _odometry,
    topics.NAV_SAT_FIX: _fix,
}
