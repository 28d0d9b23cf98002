"""The messages of a short drive along a street of keyframes, and a localizer that knows the truth.

For what lies between messages and a localizer: aligning images takes long and is not the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymap3d

from helpers.invented import alignment
from helpers.priors import DATUM, street_map
from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.replay import messages
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

Message = tuple[str, Any]  # part, message

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SPEED_MPS = 10.0
FRAME = "camera_optical"
SIZE = (8, 6)
CAMERA = Camera.create("PINHOLE", list(SIZE), [6.0, 6.0], [3.5, 2.5])
COVARIANCE = np.diag([0.02] * 3 + [0.001] * 3) ** 2
FOUND_WITHIN_M = 5.0  # of the truth, a prior leads to it

T_MAP_BASE = street_map().keyframe_T_map_cam @ se3.inverse(se3.base_from_optical())


def at_ns(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


def truth(stamp_ns: int) -> Matrix:
    """T_map_base (4, 4): from 20 m on, along the street."""
    T_map_base = T_MAP_BASE[20].copy()
    T_map_base[0, 3] += SPEED_MPS * (stamp_ns - START_NS) / SECOND
    return T_map_base


class TruthfulLocalizer:
    """Finds the truth where a prior is near it, and in a search of the map."""

    can_search = True

    def __init__(self, config: Config | None = None) -> None:
        self.holder = ConfigHolder(config or Config())
        self.map = street_map()
        self.seen: list[tuple[Frame, ...]] = []

    def localize(
        self, frame: Frame, prior: PosePrior | None, other_cameras: Sequence[Frame] = ()
    ) -> Estimate:
        self.seen.append((frame, *other_cameras))
        T_map_base = truth(taken_ns(frame))
        if prior is None:
            prior = PosePrior(T_map_base, np.eye(6), "retrieval", frame.stamp_ns)
        near = se3.distance_m(prior.T_map_base, T_map_base) < FOUND_WITHIN_M
        status, reason = (Status.OK, Reason.OK) if near else (Status.REJECTED, Reason.HIGH_COST)
        cameras = [f.camera_name for f in (frame, *other_cameras) if f.camera_name]
        return Estimate(
            status,
            reason,
            "",
            frame.stamp_ns,
            frame.name,
            T_map_base=T_map_base if near else None,
            covariance=COVARIANCE if near else None,
            prior=prior,
            alignment=alignment(T_map_base, prior.T_map_base),
            cameras=tuple(cameras),
        )


def static_transforms(stamp_ns: int = START_NS) -> Message:
    T_base_cam = se3.base_from_optical()
    return "tf_static", messages.static_transform(stamp_ns, "base_link", FRAME, T_base_cam)


def calibration(stamp_ns: int) -> Message:
    return "camera_info", messages.camera_info(stamp_ns, FRAME, CAMERA)


def image(stamp_ns: int) -> Message:
    """Its pixels tell when it was taken, whatever becomes of its stamp."""
    pixels = np.zeros(SIZE[0] * SIZE[1] * 3, np.uint8)
    pixels[:8] = np.array([stamp_ns], np.int64).view(np.uint8)
    return "image", messages.image(stamp_ns, FRAME, pixels.reshape(SIZE[1], SIZE[0], 3))


def taken_ns(frame: Frame) -> int:
    """When the image of a frame was really taken."""
    return int(frame.image_rgb.reshape(-1)[:8].copy().view(np.int64)[0])


def odometry(stamp_ns: int) -> Message:
    T_odom_base = se3.inverse(truth(START_NS)) @ truth(stamp_ns)
    return "odom", messages.odometry(stamp_ns, "odom", "base_link", T_odom_base)


def odometry_on_tf(stamp_ns: int) -> Message:
    T_odom_base = se3.inverse(truth(START_NS)) @ truth(stamp_ns)
    return "tf", messages.static_transform(stamp_ns, "odom", "base_link", T_odom_base)


def fix(stamp_ns: int) -> Message:
    yaw_rad = np.deg2rad(DATUM.yaw_deg)
    x, y, z = truth(stamp_ns)[:3, 3]
    east, north = (
        np.cos(yaw_rad) * x - np.sin(yaw_rad) * y,
        np.sin(yaw_rad) * x + np.cos(yaw_rad) * y,
    )
    place = pymap3d.enu2geodetic(
        east, north, z, DATUM.latitude_deg, DATUM.longitude_deg, DATUM.altitude_m
    )
    return "gnss_fix", messages.nav_sat_fix(stamp_ns, "base_link", place, np.ones(3))


def initial_pose(stamp_ns: int, frame: str = "map", T_frame_map: Matrix | None = None) -> Message:
    T = truth(stamp_ns) if T_frame_map is None else T_frame_map @ truth(stamp_ns)
    covariance = np.diag([0.25, 0.25, 0.25, 0.01, 0.01, 0.01])
    return "initialpose", messages.pose_with_covariance(stamp_ns, frame, T, covariance)


def drive(
    frames: int = 10, fixes: bool = True, odometry_of: Any = odometry, start_s: float = 0.0
) -> list[Message]:
    """Images at 10 Hz, odometry at 50 Hz, fixes at 5 Hz; at equal stamps odometry comes first."""
    timed: list[Message] = [static_transforms()]
    for tick in range(5 * frames):
        stamp_ns = at_ns(start_s + tick / 50)
        timed.append(odometry_of(stamp_ns))
        if tick % 5 == 0:
            timed += [calibration(stamp_ns), image(stamp_ns)]
        if fixes and tick % 10 == 0:
            timed.insert(-2, fix(stamp_ns))
    return timed
