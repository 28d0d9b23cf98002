"""Poses of the vehicle along the generated street, and the mounting of its camera."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.demo.street.ground import Layout
from pixloc_ros.demo.street.surfaces import Array
from pixloc_ros.geometry.se3 import Matrix

SPEED_M_S, RATE_HZ = 8.0, 10.0
START_NS = 1_000_000_000_000
MAPPING_OFFSET_M, QUERY_OFFSET_M = -1.15, -1.6

# Optical axes (x right, y down, z forward) in base_link; the camera looks 1.5 degrees downwards.
_TILT = Rotation.from_euler("x", -1.5, degrees=True).as_matrix()
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
T_BASE_CAM = np.eye(4)
T_BASE_CAM[:3, :3] = _OPTICAL @ _TILT
T_BASE_CAM[:3, 3] = (0.6, 0.0, 1.5)


def drive_poses(
    layout: Layout,
    start_m: float,
    distance_m: float,
    rate_hz: float = RATE_HZ,
    speed_m_s: float = SPEED_M_S,
) -> tuple[list[int], list[Matrix]]:
    """Simulate a drive at about this speed, with a weaving driver and a pitching and rolling body.

    start_m: x of the first pose. Returns stamps in ns and T_map_base (4, 4), base_link on the
    ground.
    """
    count = int(distance_m / speed_m_s * rate_hz)
    time_s = np.arange(count) / rate_hz
    travelled = speed_m_s * time_s + 0.9 * (1 - np.cos(0.7 * time_s))
    along = np.arange(start_m, start_m + 1.3 * distance_m + 5.0, 0.25)
    arc = np.concatenate([[0.0], np.cumsum(0.25 / np.cos(layout.heading(along)))[:-1]])
    x = np.interp(travelled, arc, along)
    offset = QUERY_OFFSET_M + 0.30 * np.sin(0.085 * travelled) + 0.06 * np.sin(0.51 * travelled)
    pitch = 0.45 * np.sin(7.1 * time_s) + 0.25 * np.sin(11.7 * time_s + 1.0)
    roll = 0.50 * np.sin(5.3 * time_s + 0.4) + 0.2 * np.sin(13.1 * time_s)
    stamps = [START_NS + round(1e9 * t) for t in time_s]
    return stamps, _poses(layout, x, offset, pitch, roll)


def mapping_poses(
    layout: Layout, start_m: float, distance_m: float, spacing_m: float
) -> list[Matrix]:
    """Return keyframes T_map_base (4, 4), evenly spaced, nearer to the middle of the road."""
    x = start_m + np.arange(0.0, distance_m, spacing_m)
    offset = MAPPING_OFFSET_M + 0.12 * np.sin(0.11 * x + 0.8)
    return _poses(layout, x, offset, 0.2 * np.sin(0.9 * x), 0.25 * np.sin(0.7 * x + 1.0))


def _poses(
    layout: Layout, x: Array, offset: Array, pitch_deg: Array, roll_deg: Array
) -> list[Matrix]:
    """Return poses at x and an offset to the left of the centre line, heading along the path."""
    y = layout.centre(x) + offset
    weave = np.gradient(offset, x) if len(x) > 1 else np.zeros_like(x)
    yaw = layout.heading(x) + np.arctan(weave)
    angles = np.column_stack([yaw, np.radians(pitch_deg), np.radians(roll_deg)])
    poses = np.tile(np.eye(4), (len(x), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("ZYX", angles).as_matrix()
    poses[:, :2, 3] = np.column_stack([x, y])
    return list(poses)
