"""Is the map good? Figures with limits, and the stretches where it is weak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage
from pixloc_ros.maps.files.colmap import ColmapModel

SHARED_POINTS = 15  # that make two keyframes neighbours
AT_LEAST, AT_MOST = True, False
REMEDIES = {
    "keyframes placed": "record slower, with more texture in the image or more light",
    "mean reprojection error": (
        "calibrate the camera, or refine the calibration (mapping.refine_intrinsics=always)"
    ),
    "keyframes per point": ("take keyframes closer to each other (mapping.keyframe_spacing_m)"),
    "share of weak keyframes": "drive the weak stretches again, slower or by day",
    "median distance of fixes": "check antenna, receiver and clocks",
    "difference from odometry over ten keyframes, worst tenth": (
        "check the mounting of the camera, the odometry and the clocks"
    ),
}


@dataclass(frozen=True, slots=True)
class MapCheck:
    """One figure of a map and its limit."""

    name: str
    value: float
    limit: float
    at_least: bool  # or at most
    remedy: str
    unit: str = ""

    @property
    def good(self) -> bool:
        """Whether the figure is within its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        return f"{self.name} {self.value:.3g}{self.unit} ({bound} {self.limit:g}{self.unit})"


@dataclass(frozen=True, slots=True)
class WeakStretch:
    """Keyframes in a row that see little."""

    drive: str
    first_ns: int
    last_ns: int
    place_map: tuple[float, float]
    keyframes: int
    reason: str

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(ns / 1e9, UTC) for ns in (self.first_ns, self.last_ns))
        x, y = self.place_map
        return (
            f"{self.drive} {start:%H:%M:%S.%f}"[:-4]
            + f" to {end:%H:%M:%S.%f}"[:-4]
            + f" UTC, around x {x:.0f} m, y {y:.0f} m: {self.keyframes} keyframes, {self.reason}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class KeyframeCoverage:
    """What each keyframe sees: (N,) points, and others it shares at least SHARED_POINTS with."""

    points: NDArray[np.int64]
    neighbours: NDArray[np.int64]

    def weak(self, config: MappingConfig) -> NDArray[np.bool_]:
        """(N,) keyframes with few points or few neighbours."""
        few_points = self.points < config.weak_points
        return few_points | (self.neighbours < config.weak_neighbours)


def coverage(model: ColmapModel, names: Sequence[str]) -> KeyframeCoverage:
    """Count what keyframes of these names see; those that the model lacks see nothing."""
    images = {image.name: image for image in model.images}
    none = np.zeros(0, np.int64)
    seen = [np.unique(images[name].point_ids) if name in images else none for name in names]
    seen = [points[points >= 0] for points in seen]
    counts = np.array([len(points) for points in seen])
    row = np.repeat(np.arange(len(names)), counts)
    column = np.searchsorted(model.point_ids, np.concatenate([none, *seen]))
    sees = sparse.csr_matrix(
        (np.ones(len(row), np.int32), (row, column)), (len(names), len(model.point_ids))
    )
    shared = sees @ sees.T
    neighbours = np.asarray((shared >= SHARED_POINTS).sum(axis=1)).ravel()
    return KeyframeCoverage(counts, neighbours - (counts >= SHARED_POINTS))


def weak_stretches(
    keyframes: Sequence[KeyframeImage],
    drive_names: Sequence[str],
    positions: Matrix,
    found: KeyframeCoverage,
    config: MappingConfig,
) -> list[WeakStretch]:
    """Runs of weak keyframes, by drive and camera, in the order of time. positions: (N, 3)."""
    weak = found.weak(config)
    stretches = []
    for drive, camera in sorted({(k.drive, k.camera_name) for k in keyframes}):
        index = [i for i, k in enumerate(keyframes) if (k.drive, k.camera_name) == (drive, camera)]
        run: list[int] = []
        for i in [*index, None]:
            if i is not None and weak[i]:
                run.append(i)
            elif run:
                stretches.append(_stretch(run, keyframes, drive_names, positions, found, config))
                run = []
    return stretches


def _stretch(
    run: Sequence[int],
    keyframes: Sequence[KeyframeImage],
    drive_names: Sequence[str],
    positions: Matrix,
    found: KeyframeCoverage,
    config: MappingConfig,
) -> WeakStretch:
    x, y = np.median(positions[run, :2], axis=0).tolist()
    points, neighbours = int(found.points[run].min()), int(found.neighbours[run].min())
    reason = (
        f"as few as {points} points"
        if points < config.weak_points
        else f"as few as {neighbours} neighbours"
    )
    first, last = keyframes[run[0]], keyframes[run[-1]]
    return WeakStretch(
        drive_names[first.drive], first.stamp_ns, last.stamp_ns, (x, y), len(run), reason
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFigures:
    """What is measured of a map; None where there are no fixes or no odometry."""

    placed_share: float  # of the keyframes
    error_px: float  # mean, of reprojection
    track_length: float  # mean number of keyframes per point
    weak_share: float  # of the keyframes, those that are placed but see little
    fix_error_m: float | None  # median, in the plane
    odometry_error_share: float | None  # of the way over ten keyframes; the worst tenth


def check_map(figures: MapFigures, config: MappingConfig) -> list[MapCheck]:
    """All figures that are known, with their limits."""
    errors_px, fixes_m = figures.error_px, figures.fix_error_m
    rows: list[tuple[str, float | None, bool, float, str]] = [
        ("keyframes placed", figures.placed_share, AT_LEAST, config.min_placed_share, ""),
        ("mean reprojection error", errors_px, AT_MOST, config.max_error_px, " px"),
        ("keyframes per point", figures.track_length, AT_LEAST, config.min_track_length, ""),
        ("share of weak keyframes", figures.weak_share, AT_MOST, config.max_weak_share, ""),
        ("median distance of fixes", fixes_m, AT_MOST, config.max_fix_error_m, " m"),
        (
            "difference from odometry over ten keyframes, worst tenth",
            figures.odometry_error_share,
            AT_MOST,
            config.max_odometry_error_share,
            "",
        ),
    ]
    return [
        MapCheck(name, value, limit, at_least, REMEDIES[name], unit)
        for name, value, at_least, limit, unit in rows
        if value is not None
    ]
