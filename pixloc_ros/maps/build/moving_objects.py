"""Several scans as one cloud, without the points that other scans saw through.

Where a beam went farther than a point, nothing was there at that time: a point that many beams
passed and few hit was part of something that moved, or was noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix


@dataclass(frozen=True, slots=True)
class Scan:
    """One turn of a lidar, or several that were corrected for motion."""

    points: Matrix  # (N, 3) in the lidar's frame
    T_map_lidar: Matrix  # (4, 4)


@dataclass(frozen=True, slots=True)
class MovingOptions:
    """When a point counts as moving."""

    cell_deg: float = 0.8  # of the range images, at least the angle between two scan lines
    tolerance_m: float = 0.4
    tolerance_share: float = 0.02  # of the range
    passed_share: float = 0.05  # of the scans that tell of a point, those that saw through it


@dataclass(frozen=True, slots=True)
class MovingReport:
    """How many points there were, and how many of them are left out."""

    scans: int
    points: int
    moving: int

    def __str__(self) -> str:
        return (
            f"{self.points} points of {self.scans} scans, {self.moving} of them left out: other "
            f"scans saw through them"
        )


def static_points(
    scans: Sequence[Scan], options: MovingOptions | None = None, progress: Progress = silent
) -> tuple[Matrix, MovingReport]:
    """Points (P, 3) in the map that hardly any other scan saw through.

    Raises MapError for fewer scans than can tell, and where hardly anything stays.
    """
    options = options or MovingOptions()
    if len(scans) < 2:
        raise MapError("one scan does not tell what moves; give several")
    images = [_RangeImage.of(scan, options) for scan in scans]
    kept = []
    for scan in progress(scans, "Comparing scans", len(scans)):
        points_map = se3.transform(scan.T_map_lidar, scan.points)
        others = [image for image, other in zip(images, scans, strict=True) if other is not scan]
        kept.append(points_map[~_moving(points_map, others, options)])
    points = np.concatenate(kept)
    total = sum(len(scan.points) for scan in scans)
    if len(points) < total / 2:
        raise MapError(
            f"other scans saw through {total - len(points)} of {total} points: are the poses those "
            f"of the scans?"
        )
    return points, MovingReport(len(scans), total, total - len(points))


def _moving(
    points_map: Matrix, others: Sequence[_RangeImage], options: MovingOptions
) -> NDArray[np.bool_]:
    passed, hit = (np.zeros(len(points_map), int) for _ in range(2))
    for image in others:
        range_m, nearest_m, farthest_m = image.ranges_towards(points_map)
        tolerance_m = options.tolerance_m + options.tolerance_share * range_m
        through = nearest_m > range_m + tolerance_m
        passed += through
        hit += ~through & (farthest_m > range_m - tolerance_m)
    return passed > options.passed_share * (passed + hit)


@dataclass(frozen=True, slots=True)
class _RangeImage:
    """The nearest and farthest range around each direction; NaN where nothing was measured."""

    T_lidar_map: Matrix
    nearest_m: Matrix  # (rows, columns): elevation, azimuth
    farthest_m: Matrix
    cell_rad: float

    @classmethod
    def of(cls, scan: Scan, options: MovingOptions) -> _RangeImage:
        cell_rad = np.deg2rad(options.cell_deg)
        shape = (int(np.pi / cell_rad) + 1, int(2 * np.pi / cell_rad) + 1)
        range_m, cell = _directions(scan.points, cell_rad)
        nearest, farthest = np.full(shape, np.inf), np.zeros(shape)
        np.minimum.at(nearest, cell, range_m)
        np.maximum.at(farthest, cell, range_m)
        measured = np.isfinite(nearest)
        around = {"size": 3, "mode": ("nearest", "wrap")}
        return cls(
            T_lidar_map=se3.inverse(scan.T_map_lidar),
            nearest_m=np.where(measured, minimum_filter(nearest, **around), np.nan),
            farthest_m=np.where(measured, maximum_filter(farthest, **around), np.nan),
            cell_rad=cell_rad,
        )

    def ranges_towards(self, points_map: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Ranges (N,) of points, and the nearest and farthest measured around their directions."""
        range_m, cell = _directions(se3.transform(self.T_lidar_map, points_map), self.cell_rad)
        return range_m, self.nearest_m[cell], self.farthest_m[cell]


def _directions(
    points: Matrix, cell_rad: float
) -> tuple[Matrix, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Range (N,) of points in the lidar's frame, and the row and column of their direction."""
    range_m = np.linalg.norm(points, axis=-1)
    elevation = np.arcsin(np.clip(points[:, 2] / np.maximum(range_m, 1e-9), -1, 1))
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    row = ((elevation + np.pi / 2) / cell_rad).astype(np.int64)
    column = ((azimuth + np.pi) / cell_rad).astype(np.int64)
    return range_m, (row, column)
