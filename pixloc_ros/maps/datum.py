"""Where on Earth a map is: at a point of the ellipsoid, or in a projected frame of surveyors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pymap3d
from pydantic import Field, ValidationError, field_validator
from scipy.spatial.transform import Rotation

from pixloc_ros.common.models import PublicModel, first_problem
from pixloc_ros.errors import MapError, PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix


class Datum(PublicModel, frozen=True, extra="forbid"):
    """Where on Earth the map's point (0, 0, 0) is. WGS 84, altitude above the ellipsoid.

    The map is flat there: east, north and up are those of this point.
    """

    latitude_deg: float = Field(ge=-90, le=90)
    longitude_deg: float = Field(ge=-180, le=180)
    altitude_m: float = Field(allow_inf_nan=False)
    yaw_deg: float = Field(allow_inf_nan=False)  # of the map's x axis, counter-clockwise from east

    @classmethod
    def refusal(cls, error: ValidationError) -> PixlocError:
        """Return the error, in one line."""
        return MapError(f"{cls.__name__}: {first_problem(error)}")

    @classmethod
    def parse(cls, text: str) -> Datum:
        """From `LAT,LON,ALT,YAW`; raises MapError for anything else."""
        try:
            latitude, longitude, altitude, yaw = (float(part) for part in str(text).split(","))
            values = (latitude, longitude, altitude, yaw)
            return cls.model_validate(dict(zip(cls.model_fields, values, strict=True)))
        except ValueError as error:  # pydantic's errors are ValueErrors too
            why = first_problem(error) if isinstance(error, ValidationError) else "four numbers"
            raise MapError(
                f"datum '{text}': expected LAT,LON,ALT,YAW as in 49.01,8.43,110,0 ({why})"
            ) from None

    def position_map(self, latitude_deg: float, longitude_deg: float, altitude_m: float) -> Matrix:
        """Map coordinates (3,) of a WGS-84 position; an unknown (NaN) altitude is that of zero."""
        altitude_m = altitude_m if np.isfinite(altitude_m) else self.altitude_m
        zero = self.latitude_deg, self.longitude_deg, self.altitude_m
        enu = pymap3d.geodetic2enu(latitude_deg, longitude_deg, altitude_m, *zero)
        return self.R_map_enu(latitude_deg, longitude_deg) @ np.array(enu, np.float64)

    def R_map_enu(self, latitude_deg: float, longitude_deg: float) -> Matrix:
        """Rotation (3, 3) from east, north, up to the map; the same everywhere on it."""
        return Rotation.from_euler("z", -self.yaw_deg, degrees=True).as_matrix()

    def T_ecef_map(self) -> Matrix:
        """Pose (4, 4) of the map's frame in that of the Earth."""
        zero = (self.latitude_deg, self.longitude_deg, self.altitude_m)
        latitude, longitude = np.deg2rad(zero[:2])
        # Columns: east, north, up.
        R_ecef_enu = Rotation.from_euler("ZX", [np.pi / 2 + longitude, np.pi / 2 - latitude])
        R_enu_map = Rotation.from_euler("z", self.yaw_deg, degrees=True)
        return se3.make((R_ecef_enu * R_enu_map).as_matrix(), pymap3d.geodetic2ecef(*zero))

    def __str__(self) -> str:
        position = f"{self.latitude_deg:.7f}, {self.longitude_deg:.7f}, {self.altitude_m:.2f} m"
        return f"{position}, x axis {self.yaw_deg:.2f} deg from east"


class GridDatum(PublicModel, frozen=True, extra="forbid"):
    """The map's x and y are eastings and northings of a projected frame, less those of its zero.

    Its metres are those of the projection: in UTM up to 0.1 % shorter or longer than on the ground.
    """

    crs: str  # as pyproj takes it: EPSG:25832
    easting_m: float = Field(default=0.0, allow_inf_nan=False)
    northing_m: float = Field(default=0.0, allow_inf_nan=False)
    altitude_m: float = Field(default=0.0, allow_inf_nan=False)  # of z = 0, above the ellipsoid

    @classmethod
    def refusal(cls, error: ValidationError) -> PixlocError:
        """Return the error, in one line."""
        return MapError(f"{cls.__name__}: {first_problem(error)}")

    @field_validator("crs")
    @classmethod
    def _check(cls, crs: str) -> str:
        _projection(crs)
        return crs

    @classmethod
    def parse(cls, text: str) -> GridDatum:
        """From `CRS` or `CRS,EASTING,NORTHING,ALTITUDE`; raises MapError for anything else."""
        crs, *zero = str(text).split(",")
        try:
            easting, northing, altitude = (float(part) for part in zero or (0, 0, 0))
            values = (crs, easting, northing, altitude)
            return cls.model_validate(dict(zip(cls.model_fields, values, strict=True)))
        except ValueError as error:
            why = first_problem(error) if isinstance(error, ValidationError) else "three numbers"
            raise MapError(
                f"crs '{text}': expected a code, as EPSG:25832, and if the map's zero is not that "
                f"of the frame ,EASTING,NORTHING,ALTITUDE ({why})"
            ) from None

    def position_map(self, latitude_deg: float, longitude_deg: float, altitude_m: float) -> Matrix:
        """Map coordinates (3,) of a WGS-84 position; an unknown (NaN) altitude is that of zero.

        Not finite where the projection does not reach.
        """
        altitude_m = altitude_m if np.isfinite(altitude_m) else self.altitude_m
        easting, northing = _projection(self.crs).transform(longitude_deg, latitude_deg)
        zero = self.easting_m, self.northing_m, self.altitude_m
        return np.array([easting, northing, altitude_m], np.float64) - zero

    def R_map_enu(self, latitude_deg: float, longitude_deg: float) -> Matrix:
        """Rotation (3, 3) from east, north, up to the map: grid north is not quite north."""
        ahead_deg = 1e-4  # about 11 m
        start, end = (
            self.position_map(latitude_deg + step, longitude_deg, self.altitude_m)
            for step in (-ahead_deg, ahead_deg)
        )
        x, y, _ = end - start
        return Rotation.from_euler("z", np.arctan2(-x, y)).as_matrix()

    def __str__(self) -> str:
        zero = f"{self.easting_m:.2f}, {self.northing_m:.2f}, {self.altitude_m:.2f} m"
        return f"{self.crs}, zero at {zero}"


AnyDatum = Datum | GridDatum


def T_first_second(first: AnyDatum, second: AnyDatum) -> Matrix:
    """Where the frame of a second map is in that of a first (4, 4).

    Raises MapError where both are not known in the same way.
    """
    if first == second:
        return np.eye(4)
    if isinstance(first, Datum) and isinstance(second, Datum):
        return se3.inverse(first.T_ecef_map()) @ second.T_ecef_map()
    if isinstance(first, GridDatum) and isinstance(second, GridDatum) and first.crs == second.crs:
        return se3.make(np.eye(3), _zero(second) - _zero(first))
    raise MapError(
        f"one is placed on Earth by {_kind(first)}, the other by {_kind(second)}; build them alike"
    )


def _zero(datum: GridDatum) -> Matrix:
    return np.array([datum.easting_m, datum.northing_m, datum.altitude_m])


def _kind(datum: AnyDatum) -> str:
    return "a datum" if isinstance(datum, Datum) else datum.crs


@lru_cache(maxsize=8)
def _projection(crs: str) -> Any:
    """Of pyproj, from (longitude, latitude) of WGS 84; raises ValueError where it is no grid.

    Raises MapError where pyproj is not installed.
    """
    try:
        import pyproj
    except ImportError:
        raise MapError("maps with a crs need pyproj: pip install 'pixloc_ros[crs]'") from None
    try:
        known = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError:
        raise ValueError(f"pyproj knows no '{crs}'") from None
    axes = {(axis.direction, axis.unit_name) for axis in known.axis_info[:2]}
    if not known.is_projected or axes != {("east", "metre"), ("north", "metre")}:
        raise ValueError(f"{known.name} has no eastings and northings in metres")
    return pyproj.Transformer.from_crs("EPSG:4326", known, always_xy=True)
