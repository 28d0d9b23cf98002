"""What a bag says, in our types: one small object per usable message."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import turned
from pixloc_ros.geometry.se3 import Matrix


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """A decoded frame."""

    stamp_ns: int
    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    frame_id: str
    camera_name: str = ""  # in a rig


@dataclass(frozen=True, slots=True)
class CameraInfoEvent:
    """A calibration."""

    stamp_ns: int
    camera: Camera
    frame_id: str
    camera_name: str = ""  # in a rig


@dataclass(frozen=True, slots=True)
class OdometryEvent:
    """A pose of the vehicle in its odometry frame."""

    stamp_ns: int
    T_odom_base: Matrix
    frame_id: str
    child_frame_id: str


@dataclass(frozen=True, slots=True)
class FixEvent:
    """A GNSS fix as received; what to believe of it is the tracker's affair."""

    stamp_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    covariance_enu: Matrix | None  # (3, 3) m^2; None where the receiver does not know it
    status: int
    frame_id: str = ""  # of the antenna


@dataclass(frozen=True, slots=True)
class PoseEvent:
    """A stated pose: of a GNSS with attitude, or of a person."""

    stamp_ns: int
    T_map_base: Matrix
    covariance: Matrix  # (6, 6) in the axes of frame_id
    frame_id: str
    source: str  # "gnss" or "initialpose"

    def seen_from(self, T_map_frame: Matrix) -> PoseEvent:
        """The same, where `T_map_base` was in another frame than the map's."""
        covariance = turned(self.covariance, T_map_frame[:3, :3])
        return replace(self, T_map_base=T_map_frame @ self.T_map_base, covariance=covariance)


@dataclass(frozen=True, slots=True)
class StaticTransformEvent:
    """One fixed transform between two frames."""

    parent: str
    child: str
    T_parent_child: Matrix


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """A message that could not be used, and why."""

    stamp_ns: int
    part: str  # "image", "camera_info", "odom", ...
    reason: str
    message: str
    camera_name: str = ""  # in a rig


Event = (
    ImageEvent
    | CameraInfoEvent
    | OdometryEvent
    | FixEvent
    | PoseEvent
    | StaticTransformEvent
    | RejectedEvent
)
