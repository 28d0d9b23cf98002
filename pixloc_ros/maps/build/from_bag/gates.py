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


def check_map(
    placed_share: float,
    error_px: float,
    track_length: float,
    fix_error_m: float | None,
    odometry_error_share: float | None,
    weak_share: float,
    config: MappingConfig,
) -> list[MapCheck]:
    """All figures with their limits; None where there are no fixes or no odometry."""
    checks = [
        MapCheck(
            "keyframes placed",
            placed_share,
            config.min_placed_share,
            True,
            "record slower, with more texture in the image or more light",
        ),
        MapCheck(
            "mean reprojection error",
            error_px,
            config.max_error_px,
            False,
            "calibrate the camera, or refine the calibration (mapping.refine_intrinsics=always)",
            " px",
        ),
        MapCheck(
            "keyframes per point",
            track_length,
            config.min_track_length,
            True,
            "take keyframes closer to each other (mapping.keyframe_spacing_m)",
        ),
        MapCheck(
            "share of weak keyframes",
            weak_share,
            config.max_weak_share,
            False,
            "drive the weak stretches again, slower or by day",
        ),
    ]
    if fix_error_m is not None:
        checks.append(
            MapCheck(
                "median distance of fixes",
                fix_error_m,
                config.max_fix_error_m,
                False,
                "check antenna, receiver and clocks",
                " m",
            )
        )
    if odometry_error_share is not None:
        checks.append(
            MapCheck(
                "difference from odometry over ten keyframes, worst tenth",
                odometry_error_share,
                config.max_odometry_error_share,
                False,
                "check the mounting of the camera, the odometry and the clocks",
            )
        )
    return checks
