"""A street map, a drive on it and a tracker, for the tests of priors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pymap3d
from scipy.spatial.transform import Rotation

from pixloc_ros.config import Config, PriorsConfig
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.maps.datum import Datum
from pixloc_ros.priors.gnss import ReceivedFix
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.types import Estimate, Reason, Status

CONFIG = PriorsConfig()


def holder(config: PriorsConfig = CONFIG) -> ConfigHolder:
    """A configuration of priors, held as a session's is."""
    return ConfigHolder(Config(priors=config))


DATUM = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=30.0)


TIGHT = np.eye(6) * 1e-4


SECOND = 1_000_000_000


def pose(x: float, y: float = 0.0, yaw_deg: float = 0.0) -> np.ndarray:
    return se3.make(Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix(), [x, y, 0.0])


def at_s(seconds: float) -> int:
    return round(seconds * SECOND)


def street_map(datum: Datum | None = DATUM) -> SimpleNamespace:
    """Keyframes every metre along x at a height of 3 m, pitched by 4 degrees."""
    tilt = Rotation.from_euler("y", 4, degrees=True).as_matrix()
    T_map_base = np.array([se3.make(tilt, [x, 0.0, 3.0]) for x in range(100)])
    T_base_cam = se3.base_from_optical()
    return SimpleNamespace(
        keyframe_T_map_cam=T_map_base @ T_base_cam, T_base_cam=T_base_cam, datum=datum
    )


def tracker(datum: Datum | None = DATUM, config: PriorsConfig = CONFIG) -> PoseTracker:
    return PoseTracker(holder(config), street_map(datum))


def drive(to: PoseTracker | OdometryBuffer, until_s: float, speed_mps: float = 10.0) -> None:
    add = to.add if isinstance(to, OdometryBuffer) else to.add_odometry
    for tick in range(round(until_s * 50) + 1):
        add(at_s(tick / 50), pose(speed_mps * tick / 50))


def accepted(stamp_ns: int, T_map_base: np.ndarray) -> Estimate:
    return Estimate(Status.OK, Reason.OK, "", stamp_ns, T_map_base=T_map_base, covariance=TIGHT)


def fix_at(
    to: PoseTracker,
    stamp_s: float,
    xy: tuple[float, float],
    antenna_base: np.ndarray | None = None,
    **changes: object,
) -> None:
    """A fix at map coordinates x, y."""
    east, north, up = Rotation.from_euler("z", DATUM.yaw_deg, degrees=True).apply([*xy, 0.0])
    latitude, longitude, altitude = pymap3d.enu2geodetic(
        east, north, up, DATUM.latitude_deg, DATUM.longitude_deg, DATUM.altitude_m
    )
    fix = {
        "latitude_deg": latitude,
        "longitude_deg": longitude,
        "altitude_m": altitude,
        "covariance_enu": np.diag([1.0, 1.0, 9.0]),
        "status": 0,
    }
    to.add_fix(ReceivedFix(at_s(stamp_s), **{**fix, **changes}), antenna_base)
