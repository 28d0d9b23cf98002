"""Estimate the vehicle's heading from the motion of its GNSS positions.

With odometry, its path is fitted to the fixes, which gives the rotation from the odometry's axes to
the map's, whichever way the vehicle drives. Without, the course over ground serves as the heading,
which is wrong for a vehicle that reverses.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gates import seconds
from pixloc_ros.priors.gnss import Fix
from pixloc_ros.priors.odometry import OdometryBuffer, OdometryReading

_SPACING_M = 0.5  # between the fixes that are remembered
_REMEMBERED = 60  # fixes
_CONSISTENT = 3.0  # sigmas by which the path and the distance between the fixes may differ
_FLOOR_DEG = 1.0  # unmodelled errors: the axes of the odometry, the position of the antenna


@dataclass(frozen=True, slots=True)
class Heading:
    """Direction of the vehicle's x axis in the map, counter-clockwise from the map's x axis."""

    angle_rad: float
    sigma_rad: float


@dataclass(frozen=True, slots=True)
class _Mark:
    """A fix, and the odometry reading at that moment (None: not yet known)."""

    fix: Fix
    reading: OdometryReading | None

    @property
    def antenna_odom(self) -> Matrix:
        """Position (2,) of the antenna in the odometry frame."""
        assert self.reading is not None
        return se3.transform(self.reading.T_odom_base, self.fix.antenna_base[None])[0, :2]


class HeadingFromMotion:
    """Estimates the heading from remembered fixes at some distance from each other."""

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._marks: deque[_Mark] = deque(maxlen=_REMEMBERED)

    def clear(self) -> None:
        """Forget all fixes."""
        self._marks.clear()

    def add(self, fix: Fix, odometry: OdometryBuffer) -> None:
        """Take the next fix; the newest is always kept, earlier ones only at some distance."""
        marks = self._marks
        if len(marks) > 1 and _distance_m(marks[-1].fix, marks[-2].fix) < _SPACING_M:
            marks.pop()
        marks.append(_Mark(fix, odometry.at(fix.stamp_ns)))

    def read(self, odometry: OdometryBuffer) -> None:
        """Fill in the odometry of a fix that came before it."""
        if self._marks and self._marks[-1].reading is None:
            newest = self._marks[-1]
            self._marks[-1] = replace(newest, reading=odometry.at(newest.fix.stamp_ns))

    def newest(self) -> Heading | None:
        """Return the heading at the newest fix; None until the vehicle has moved far enough."""
        if len(self._marks) < 2:
            return None
        heading = self._course() if self._marks[-1].reading is None else self._by_odometry()
        known = heading.sigma_rad < np.deg2rad(self._config.current.priors.gnss_heading_sigma_deg)
        return heading if known else None

    def _by_odometry(self) -> Heading:
        """Fit the odometry's path to the fixes, as far back as that reduces the sigma."""
        newest = self._marks[-1].reading
        assert newest is not None
        marks = [m for m in self._marks if m.reading and m.reading.epoch == newest.epoch]
        if len(marks) < 2:
            return Heading(0.0, np.inf)
        sigmas = [self._sigma_from(mark, marks[-1]) for mark in marks[:-1]]
        first = int(np.argmin(sigmas))
        fixes = np.array([m.fix.position_map[:2] for m in marks[first:]])
        path = np.array([m.antenna_odom for m in marks[first:]])
        yaw_rad = np.arctan2(newest.T_odom_base[1, 0], newest.T_odom_base[0, 0])
        return Heading(_turn(path, fixes) + yaw_rad, sigmas[first])

    def _sigma_from(self, before: _Mark, newest: _Mark) -> float:
        """Return the heading's sigma (rad) if the path between two fixes is fitted to them.

        Infinite if path and fixes differ in length: slipping wheels say nothing about the heading.
        """
        assert before.reading is not None and newest.reading is not None
        config = self._config.current.priors
        path_m = float(np.linalg.norm(newest.antenna_odom - before.antenna_odom))
        driven_m = newest.reading.driven_m - before.reading.driven_m
        odometry_m = config.odometry_position_sigma_share * driven_m
        limit_m = _CONSISTENT * np.hypot(_noise_m(before.fix, newest.fix), odometry_m)
        if abs(_distance_m(before.fix, newest.fix) - path_m) > limit_m:
            return np.inf
        drift_deg = config.odometry_heading_sigma_deg_per_m * driven_m
        return _sigma(_noise_m(before.fix, newest.fix), path_m, drift_deg)

    def _course(self) -> Heading:
        """Return the most certain of the directions from earlier fixes to the newest."""
        *earlier, newest = (mark.fix for mark in self._marks)
        courses = [self._course_from(before, newest) for before in earlier]
        return min(courses, key=lambda heading: heading.sigma_rad)

    def _course_from(self, before: Fix, newest: Fix) -> Heading:
        driven = newest.position_map[:2] - before.position_map[:2]
        elapsed_s = abs(seconds(newest.stamp_ns - before.stamp_ns))
        turned_deg = self._config.current.priors.motion_sigma_degps * elapsed_s / 2.0
        sigma_rad = _sigma(_noise_m(before, newest), float(np.linalg.norm(driven)), turned_deg)
        return Heading(float(np.arctan2(driven[1], driven[0])), sigma_rad)


def _turn(path: Matrix, fixes: Matrix) -> float:
    """Return the angle that rotates points (N, 2) onto others, by least squares."""
    return se3.turn_rad(path - path.mean(0), fixes - fixes.mean(0))


def _noise_m(first: Fix, second: Fix) -> float:
    """Return the sigma of the vector between two fixes, along its least certain axis.

    Fixes in between do not reduce it: the errors of neighbouring fixes are alike.
    """
    variances = [np.linalg.eigvalsh(fix.covariance[:2, :2])[-1] for fix in (first, second)]
    return float(np.sqrt(np.sum(variances)))


def _sigma(noise_m: float, distance_m: float, drift_deg: float) -> float:
    """Return the sigma of a direction, in rad."""
    noise_rad = noise_m / max(distance_m, 1e-6)
    return float(np.linalg.norm([noise_rad, np.deg2rad(drift_deg), np.deg2rad(_FLOOR_DEG)]))


def _distance_m(first: Fix, second: Fix) -> float:
    return float(np.linalg.norm(first.position_map[:2] - second.position_map[:2]))
