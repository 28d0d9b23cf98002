"""Complete poses with what the nearest keyframe knows: height, tilt, heading."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.priors.gnss import Fix
from pixloc_ros.priors.heading import Heading

# RViz and planar GNSS set these variances to zero: they know nothing about height, roll and pitch.
_PLANAR = [2, 3, 4]
_VAGUE_HEADING_RAD2 = 1.0  # beyond about 60 degrees a heading carries no information


class MapLike(Protocol):
    """The part of a map that priors need."""

    @property
    def keyframe_T_map_cam(self) -> Matrix: ...  # (M, 4, 4)
    @property
    def datum(self) -> AnyDatum | None: ...
    @property
    def T_base_cam(self) -> Matrix | None: ...  # of the mapping camera


class VehicleKeyframes:
    """The keyframes as vehicle poses, once the camera's mounting is known.

    `T_base_cam` is that of the live camera and may be set later; a map that knows the mounting of
    its mapping camera does not need it.
    """

    def __init__(self, map: MapLike, config: ConfigHolder) -> None:
        self.T_base_cam: Matrix | None = None
        self._map = map
        self._config = config
        self._newest: KeyframeLookup | None = None

    def lookup(self) -> KeyframeLookup | None:
        """Return the keyframes; None if the camera's mounting is unknown."""
        T_base_cam = self._map.T_base_cam
        T_base_cam = self.T_base_cam if T_base_cam is None else T_base_cam
        if T_base_cam is None or not len(self._map.keyframe_T_map_cam):
            return None
        newest, config = self._newest, self._config.current.priors
        if newest is None or not newest.matches(T_base_cam, config):
            newest = KeyframeLookup(self._map.keyframe_T_map_cam, T_base_cam, config)
        self._newest = newest
        return newest


class KeyframeLookup:
    """Looks up vehicle poses of the mapping drive, T_map_base (M, 4, 4)."""

    def __init__(self, T_map_cam: Matrix, T_base_cam: Matrix, config: PriorsConfig) -> None:
        self.T_base_cam = T_base_cam
        self._T_map_base = T_map_cam @ se3.inverse(T_base_cam)
        self._places = KDTree(self._T_map_base[:, :2, 3])
        self._config = config

    def matches(self, T_base_cam: Matrix, config: PriorsConfig) -> bool:
        """Return whether it was made for this mounting and configuration."""
        return self._config is config and np.array_equal(self.T_base_cam, T_base_cam)

    def nearest(self, position_map: Matrix) -> Matrix:
        """Return T_map_base (4, 4) of the keyframe nearest in the plane."""
        return self._T_map_base[self._places.query(position_map[:2])[1]]

    def pose_at(self, position_map: Matrix) -> Matrix:
        """Return T_map_base at a plane position (2+,), height and attitude from the nearest one."""
        T_map_base = self.nearest(position_map).copy()
        T_map_base[:2, 3] = position_map[:2]
        return T_map_base

    def covariance(self, position_covariance: Matrix) -> Matrix:
        """Return a covariance (6, 6) of a pose, given that of its plane position (2+, 2+), m^2."""
        config = self._config
        covariance = np.zeros((6, 6))
        covariance[:2, :2] = position_covariance[:2, :2]
        covariance[2, 2] = config.gnss_height_sigma_m**2
        covariance[3, 3] = covariance[4, 4] = np.deg2rad(config.gnss_tilt_sigma_deg) ** 2
        covariance[5, 5] = np.deg2rad(config.gnss_heading_sigma_deg) ** 2
        return covariance

    def place(self, fix: Fix, heading: Heading | None) -> tuple[Matrix, Matrix]:
        """Return T_map_base and covariance (6, 6) of a vehicle whose antenna is at a fix.

        heading: measured from the vehicle's motion; None: that of the nearest keyframe. An error of
        the attitude swings the vehicle about its antenna; the height is that of the keyframe.
        """
        T_map_base = self.pose_at(fix.position_map)
        covariance = self.covariance(fix.covariance)
        if heading is not None:
            T_map_base = _turned(T_map_base, heading.angle_rad)
            covariance[5, 5] = heading.sigma_rad**2
        lever_map = T_map_base[:3, :3] @ fix.antenna_base
        T_map_base[:2, 3] -= lever_map[:2]
        J = np.eye(6)
        J[:2, 3:] = skew(lever_map)[:2]
        return T_map_base, J @ covariance @ J.T

    def complete(self, T_map_base: Matrix, covariance: Matrix) -> tuple[Matrix, Matrix]:
        """Replace what a pose leaves open by zero or huge variances; keep the rest."""
        if not covariance.any():
            sigma_m = self._config.gnss_default_sigma_m
            covariance = self.covariance(np.eye(2) * sigma_m**2)
            return self._on_the_map(T_map_base), covariance
        if covariance[5, 5] > _VAGUE_HEADING_RAD2:
            return self.pose_at(T_map_base[:3, 3]), self.covariance(covariance)
        if covariance[_PLANAR, _PLANAR].any():
            return T_map_base, covariance
        borrowed = self.covariance(covariance)
        borrowed[5, 5] = covariance[5, 5] or borrowed[5, 5]
        return self._on_the_map(T_map_base), borrowed

    def _on_the_map(self, T_map_base: Matrix) -> Matrix:
        """Keep plane position and heading, take height and tilt from the nearest keyframe."""
        return _turned(self.pose_at(T_map_base[:3, 3]), _heading(T_map_base))


def _turned(T_map_base: Matrix, heading_rad: float) -> Matrix:
    """Return the same position and tilt with another heading."""
    turn = Rotation.from_euler("z", heading_rad - _heading(T_map_base)).as_matrix()
    return se3.make(turn @ T_map_base[:3, :3], T_map_base[:3, 3])


def _heading(T_map_base: Matrix) -> float:
    return float(np.arctan2(T_map_base[1, 0], T_map_base[0, 0]))
