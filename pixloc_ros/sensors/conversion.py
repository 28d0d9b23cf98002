"""Convert each message to an event, or to a refusal with a reason: the entrance of every drive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    Image,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RefusedMessage,
    Size,
    StampedTransform,
    StaticTransformsEvent,
    TransformsEvent,
)

Value = TypeVar("Value")


def event_of(
    part: str,
    message: Any,
    received_ns: int,
    camera_name: str = "",
    unpack: decoding.Unpack = decoding.unpack,
) -> Event:
    """Convert one message to its event. Raises nothing: an unusable one becomes a RefusedMessage.

    part: the role of the message, a field of `topics.Topics`.
    received_ns: stamp of the refusal if the message has none.
    camera_name: which camera of a rig the message is from.
    unpack: decodes raw images.
    """
    convert = partial(_image, unpack=unpack) if part == "image" else _CONVERTERS[part]
    try:
        event = guarded(lambda: convert(message))
    except BadMessage as error:
        stamp_ns = _stamp_or(message, received_ns)
        return RefusedMessage(stamp_ns, part, error.reason, str(error), camera_name)
    if camera_name and isinstance(event, ImageEvent | CameraInfoEvent):
        return replace(event, camera_name=camera_name)
    if isinstance(event, PoseEvent):
        return replace(event, received_ns=received_ns)
    return event


def transforms_event(read: Callable[[], Any]) -> TransformsEvent:
    """Wrap a /tf message that stays serialized until needed; `read` deserializes it."""
    return TransformsEvent(lambda: guarded(lambda: _usable(deserialized(read).transforms)))


def deserialized(read: Callable[[], Any]) -> Any:
    """Return the message that `read` deserializes. Raises BadMessage if it is truncated."""
    try:
        return read()
    except Exception as error:  # middlewares raise no specific type for a truncated message
        raise BadMessage("malformed", f"{type(error).__name__}: {error}") from error


def guarded(convert: Callable[[], Value]) -> Value:
    """Return what a conversion returns; raise BadMessage and nothing else.

    This is the last safety net: the reason `unforeseen` means that no check caught the problem, and
    deserves a bug report.
    """
    try:
        return convert()
    except BadMessage:
        raise
    except Exception as error:  # the receiver survives whatever is sent
        raise BadMessage("unforeseen", f"{type(error).__name__}: {error}") from error


def stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header. Raises BadMessage if it was never set."""
    value = decoding.stamp_ns(message.header)
    if value <= 0:
        raise BadMessage("no_stamp", "the header has no stamp")
    return value


def _stamp_or(message: Any, received_ns: int) -> int:
    try:
        return guarded(lambda: stamp_ns(message))
    except BadMessage:
        return received_ns


def _frame_id(message: Any) -> str:
    """Return the frame in a message's header. Raises BadMessage for an impossible name."""
    return decoding.frame_id(message.header.frame_id)


def _image(message: Any, unpack: decoding.Unpack) -> ImageEvent:
    def decode(size: Size | None) -> Image:
        return guarded(lambda: decoding.image_rgb(message, size, unpack=unpack))

    def encoded() -> bytes | None:
        return bytes(message.data) if hasattr(message, "format") else None

    return ImageEvent(stamp_ns(message), _frame_id(message), decode, encoded=encoded)


def _camera_info(message: Any) -> CameraInfoEvent:
    return CameraInfoEvent(stamp_ns(message), decoding.camera(message), _frame_id(message))


def _odometry(message: Any) -> OdometryEvent:
    T_odom_child = decoding.pose(message.pose.pose)
    frames = _frame_id(message), decoding.frame_id(message.child_frame_id)
    return OdometryEvent(stamp_ns(message), T_odom_child, *frames)


def _fix(message: Any) -> FixEvent:
    values = (message.latitude, message.longitude, message.altitude)
    covariance = decoding.fix_covariance(message)
    status, antenna = message.status.status, _frame_id(message)
    return FixEvent(stamp_ns(message), *values, covariance, status, antenna)


def _pose(source: str, message: Any) -> PoseEvent:
    T_frame_base = decoding.pose(message.pose.pose)
    covariance = decoding.pose_covariance(message.pose)
    at_ns = decoding.stamp_ns(message.header) and stamp_ns(message)  # 0 means now
    return PoseEvent(at_ns, T_frame_base, covariance, _frame_id(message), source)


def _static_transforms(message: Any) -> StaticTransformsEvent:
    """Convert the usable transforms; a bad one does not spoil the others."""
    good: list[StampedTransform] = []
    refused: list[RefusedMessage] = []
    for transform in message.transforms:
        try:
            good.append(guarded(partial(_transform, transform)))
        except BadMessage as error:
            refused.append(RefusedMessage(0, "tf_static", error.reason, str(error)))
    return StaticTransformsEvent(tuple(good), tuple(refused))


def _usable(transforms: Sequence[Any]) -> list[StampedTransform]:
    """Return the valid transforms of a /tf message; the others concern their own publishers."""
    usable = []
    for transform in transforms:
        try:
            usable.append(guarded(partial(_transform, transform)))
        except BadMessage:
            continue
    return usable


def _transform(message: Any) -> StampedTransform:
    parent, child = _frame_id(message), decoding.frame_id(message.child_frame_id)
    names = f"transform of '{child}' in '{parent}'"
    if not (parent and child and parent.removeprefix("/") != child.removeprefix("/")):
        raise BadMessage("frame_id", f"{names} names no two frames")
    try:
        T_parent_child = decoding.pose(message.transform)
    except BadMessage as error:
        raise BadMessage(error.reason, f"{names}: {error}") from None
    return StampedTransform(decoding.stamp_ns(message.header), parent, child, T_parent_child)


_CONVERTERS: dict[str, Callable[[Any], Event]] = {
    "camera_info": _camera_info,
    "odom": _odometry,
    "gnss_fix": _fix,
    "gnss_pose": partial(_pose, "gnss"),
    "initialpose": partial(_pose, "initialpose"),
    "tf_static": _static_transforms,
}
