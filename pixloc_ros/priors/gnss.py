"""GNSS fixes: judged, then placed in the map through its datum."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pymap3d
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.config import PriorsConfig
from pixloc_ros.maps.schema import Datum
from pixloc_ros.priors.gate import JumpGate

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fix:
    """One accepted fix, in the map."""

    stamp_ns: int
    position_map: Matrix  # (3,) metres
    covariance: Matrix  # (3, 3) m^2, map axes


def position_in_map(
    datum: Datum, latitude_deg: float, longitude_deg: float, altitude_m: float
) -> Matrix:
    """Map coordinates (3,) of a WGS-84 position; an unknown (NaN) altitude is the datum's."""
    altitude_m = altitude_m if np.isfinite(altitude_m) else datum.altitude_m
    enu = pymap3d.geodetic2enu(
        latitude_deg,
        longitude_deg,
        altitude_m,
        datum.latitude_deg,
        datum.longitude_deg,
        datum.altitude_m,
    )
    return _R_map_enu(datum) @ np.array(enu, np.float64)


class GnssGate:
    """Turns fixes into map positions and refuses the useless ones; `rejected` counts why."""

    def __init__(self, config: PriorsConfig, datum: Datum | None) -> None:
        self._config = config
        self._datum = datum
        self._jumps = JumpGate(config.odometry_max_speed_mps, slack_m=config.gnss_default_sigma_m)
        self.rejected: Counter[str] = Counter()

    def clear(self) -> None:
        self._jumps.clear()

    def accept(
        self,
        stamp_ns: int,
        latitude_deg: float,
        longitude_deg: float,
        altitude_m: float,
        covariance_enu: Matrix | None,
        status: int,
    ) -> Fix | None:
        """The fix in the map, or None.

        covariance_enu: (3, 3) m^2 or None when unknown; status as in NavSatStatus (-1: no fix).
        """
        covariance = self._covariance(covariance_enu)
        fault = self._fault(latitude_deg, longitude_deg, covariance, status)
        if fault or self._datum is None:
            self.rejected[fault or "gnss_without_datum"] += 1
            return None
        position = position_in_map(self._datum, latitude_deg, longitude_deg, altitude_m)
        if self._jumps.check(stamp_ns, position[:2]) == "jump":
            self.rejected["gnss_jump"] += 1
            return None
        R = _R_map_enu(self._datum)
        return Fix(stamp_ns, position, R @ covariance @ R.T)

    def _fault(
        self, latitude_deg: float, longitude_deg: float, covariance: Matrix, status: int
    ) -> str:
        """Why this fix is of no use by itself; empty when it is of use."""
        if status < 0:
            return "gnss_no_fix"
        if not _on_earth(latitude_deg, longitude_deg):
            return "gnss_not_a_position"
        worst_m2 = np.linalg.eigvalsh(covariance[:2, :2])[-1]
        return "gnss_too_vague" if worst_m2 > self._config.gnss_max_sigma_m**2 else ""

    def _covariance(self, covariance_enu: Matrix | None) -> Matrix:
        """(3, 3) in ENU with no axis surer than receivers are."""
        config = self._config
        if covariance_enu is None or not np.isfinite(covariance_enu).all():
            return np.eye(3) * config.gnss_default_sigma_m**2
        symmetric = (covariance_enu + covariance_enu.T) / 2
        variances, axes = np.linalg.eigh(symmetric)
        return (axes * np.maximum(variances, config.gnss_min_sigma_m**2)) @ axes.T


def _R_map_enu(datum: Datum) -> Matrix:
    return Rotation.from_euler("z", -datum.yaw_deg, degrees=True).as_matrix()


def _on_earth(latitude_deg: float, longitude_deg: float) -> bool:
    finite = np.isfinite([latitude_deg, longitude_deg]).all()
    in_range = abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180
    return bool(finite and in_range and (latitude_deg or longitude_deg))
