"""Check GNSS fixes, and place them in the map through its datum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.priors.gates import JumpGate

MAX_ALTITUDE_M = 100_000.0


@dataclass(frozen=True, slots=True)
class ReceivedFix:
    """A fix as a receiver reports it, by WGS-84."""

    stamp_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    covariance_enu: Matrix | None  # (3, 3) m^2; None if the receiver does not know it
    status: int  # as in NavSatStatus (-1: no fix)

    @property
    def position(self) -> tuple[float, float, float]:
        """Latitude, longitude and altitude."""
        return self.latitude_deg, self.longitude_deg, self.altitude_m


@dataclass(frozen=True, slots=True)
class Fix:
    """An accepted fix, in map coordinates."""

    stamp_ns: int
    position_map: Matrix  # (3,) metres, of the antenna
    covariance: Matrix  # (3, 3) m^2, map axes
    antenna_base: Matrix = field(default_factory=lambda: np.zeros(3))  # (3,) metres


def antenna_base(
    config: PriorsConfig, lookup: Callable[[str, str], Matrix | None], base: str, antenna: str
) -> Matrix | None:
    """Return the antenna's position (3,) in the vehicle's frame, in metres; None if unknown.

    lookup: returns T_target_source (4, 4) of two frames, or None.
    antenna: frame in the fix's header.
    """
    if any(config.gnss_antenna_m):
        return np.array(config.gnss_antenna_m)
    T_base_antenna = lookup(base, antenna) if antenna else None
    return None if T_base_antenna is None else T_base_antenna[:3, 3]


class GnssGate:
    """Turns fixes into map positions and refuses useless ones; `rejected` counts the reasons."""

    def __init__(self, config: ConfigHolder, datum: AnyDatum | None) -> None:
        self._config = config
        self._datum = datum
        self._jumps = JumpGate()
        self.rejected: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget earlier fixes."""
        self._jumps.clear()

    def accept(self, received: ReceivedFix, antenna_base: Matrix | None = None) -> Fix | None:
        """Return the fix in map coordinates, or None if it is refused.

        antenna_base: (3,) metres in the vehicle's frame; None: at its origin.
        """
        covariance = self._covariance(received.covariance_enu)
        fault = self._fault(received, covariance)
        if fault or self._datum is None:
            self.rejected[fault or "gnss_without_datum"] += 1
            return None
        position_map = self._datum.position_map(*received.position)
        if not np.isfinite(position_map).all():
            self.rejected["gnss_beyond_the_crs"] += 1
            return None
        config = self._config.current.priors
        limits = config.odometry_max_speed_mps, config.gnss_default_sigma_m
        if self._jumps.check(received.stamp_ns, position_map[:2], *limits) == "jump":
            self.rejected["gnss_jump"] += 1
            return None
        R = self._datum.R_map_enu(received.latitude_deg, received.longitude_deg)
        antenna_base = np.zeros(3) if antenna_base is None else antenna_base
        return Fix(received.stamp_ns, position_map, R @ covariance @ R.T, antenna_base)

    def _fault(self, received: ReceivedFix, covariance: Matrix) -> str:
        """Return why this fix is useless by itself; empty if it is not."""
        if received.status < 0:
            return "gnss_no_fix"
        if not _on_earth(*received.position):
            return "gnss_not_a_position"
        worst_m2 = np.linalg.eigvalsh(covariance[:2, :2])[-1]
        limit_m2 = self._config.current.priors.gnss_max_sigma_m**2
        return "gnss_too_vague" if worst_m2 > limit_m2 else ""

    def _covariance(self, covariance_enu: Matrix | None) -> Matrix:
        """Return the ENU covariance (3, 3), no axis more certain than receivers can be."""
        config = self._config.current.priors
        if covariance_enu is None or not np.isfinite(covariance_enu).all():
            return np.eye(3) * config.gnss_default_sigma_m**2
        symmetric = (covariance_enu + covariance_enu.T) / 2
        variances, axes = np.linalg.eigh(symmetric)
        return (axes * np.maximum(variances, config.gnss_min_sigma_m**2)) @ axes.T


def _on_earth(latitude_deg: float, longitude_deg: float, altitude_m: float) -> bool:
    """Return whether a receiver can be there; receivers without a position report zero, zero."""
    in_range = abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180
    too_high = abs(altitude_m) > MAX_ALTITUDE_M  # False for NaN, which means unknown
    return bool(in_range and not too_high and (latitude_deg or longitude_deg))
