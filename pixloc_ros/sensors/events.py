"""Events: everything a drive consists of, as one small typed object per usable message.

They are made from a live node's or a bag's messages (`conversion.event_of`) and passed to
`Session.push`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import turned
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gnss import ReceivedFix

Image = NDArray[np.uint8]
Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """An image, decoded only when it is processed."""

    stamp_ns: int
    frame_id: str
    # Returns (H, W, 3) RGB. Raises BadMessage, also if the image does not have the given size.
    decode: Callable[[Size | None], Image]
    camera_name: str = ""  # which camera of a rig
    received_s: float = 0.0  # time.perf_counter(), set by a live node
    # Returns the JPEG or PNG file that the image came as; None if it came raw.
    encoded: Callable[[], bytes | None] = lambda: None

    @property
    def image_rgb(self) -> Image:
        """Decode the image (H, W, 3), whatever its size. Raises BadMessage."""
        return self.decode(None)


@dataclass(frozen=True, slots=True)
class CameraInfoEvent:
    """The calibration of a camera."""

    stamp_ns: int
    camera: Camera
    frame_id: str
    camera_name: str = ""  # which camera of a rig


@dataclass(frozen=True, slots=True)
class OdometryEvent:
    """The pose of the frame `child_frame_id` in the odometry frame."""

    stamp_ns: int
    T_odom_child: Matrix
    frame_id: str
    child_frame_id: str


@dataclass(frozen=True, slots=True)
class FixEvent(ReceivedFix):
    """A GNSS fix as received; the tracker decides how far to trust it."""

    frame_id: str = ""  # frame of the antenna


@dataclass(frozen=True, slots=True)
class PoseEvent:
    """An external pose, from a GNSS receiver with attitude or from a person."""

    stamp_ns: int
    T_frame_base: Matrix
    covariance: Matrix  # (6, 6) in the axes of frame_id
    frame_id: str
    source: str  # "gnss" or "initialpose"
    received_ns: int = 0  # by the receiver's clock; used for a stamp of 0, which means now
    sent_just_now: bool = False  # whether its stamp is the time of day at which it arrived

    def in_frame(self, frame_id: str, T_new_frame: Matrix) -> PoseEvent:
        """Return the same pose in another frame. T_new_frame: (4, 4)."""
        return replace(
            self,
            T_frame_base=T_new_frame @ self.T_frame_base,
            covariance=turned(self.covariance, T_new_frame[:3, :3]),
            frame_id=frame_id,
        )


@dataclass(frozen=True, slots=True)
class StampedTransform:
    """A rigid transform between two frames."""

    stamp_ns: int
    parent: str
    child: str
    T_parent_child: Matrix


@dataclass(frozen=True, slots=True)
class StaticTransformsEvent:
    """The usable transforms of one /tf_static message, and why the others were refused."""

    transforms: tuple[StampedTransform, ...]
    refused: tuple[RefusedMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class TransformsEvent:
    """The transforms of one /tf message, decoded only when needed."""

    decode: Callable[[], Sequence[StampedTransform]]  # raises BadMessage


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that cannot be used, with a reason to count it by and one line for people."""

    stamp_ns: int  # when it was received, if its own stamp cannot be used
    part: str  # "image", "camera_info", "odom", ...
    reason: str
    message: str
    camera_name: str = ""  # which camera of a rig


Event = (
    ImageEvent
    | CameraInfoEvent
    | OdometryEvent
    | FixEvent
    | PoseEvent
    | StaticTransformsEvent
    | TransformsEvent
    | RefusedMessage
)
