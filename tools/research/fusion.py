"""Fuse odometry, GNSS and the node's poses of a drive with outages in a filter.

Like two instances of robot_localization (docs/guide/robot_localization.md), but with a small planar
filter instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.frames import FrameResult, read_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import Trajectory, read_tum
from pixloc_ros.maps.files.recorded_drive import RecordedFixes
from pixloc_ros.maps.map import Map
from pixloc_ros.replay.bag_writer import truth_path
from pixloc_ros.replay.recorded_drive import read_drives
from research.planar_filter import PlanarFilter, planar

# Of one second of odometry, as white noise: 0.08 m/s along, 0.02 m/s across, 0.3 deg/s.
STEP_NOISE_PER_S = np.diag([0.08, 0.02, np.deg2rad(0.3)]) ** 2


@dataclass(frozen=True, slots=True)
class Correction:
    """A pose (x, y, yaw) or a position (x, y) with its covariance."""

    stamp_ns: int
    measured: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outages:
    """An outage of `length_s` in every `period_s`, from `first_s` after the start of a drive."""

    first_s: float
    length_s: float
    period_s: float

    def spare(self, corrections: Sequence[Correction], start_ns: int) -> list[Correction]:
        """Return the corrections outside of the outages."""

        def silent(stamp_ns: int) -> bool:
            since_s = (stamp_ns - start_ns) * 1e-9 - self.first_s
            return since_s >= 0 and since_s % self.period_s < self.length_s

        return [each for each in corrections if not silent(each.stamp_ns)]


@dataclass(frozen=True, slots=True)
class RecordedInputs:
    """Inputs of a filter from one drive."""

    stamps_ns: NDArray[np.int64]  # of odometry
    T_odom_base: Matrix
    fixes: list[Correction]
    poses: list[Correction]
    truth: Trajectory

    def fused(self, corrections: Sequence[Correction]) -> NDArray[np.float64]:
        """Return errors (N,) in metres at the odometry's stamps, from the first pose on."""
        first = self.poses[0]
        filter = PlanarFilter(first.measured, first.covariance)
        rest = sorted(
            (c for c in corrections if c.stamp_ns > first.stamp_ns), key=lambda c: c.stamp_ns
        )
        errors = []
        for before, after in self._steps(first.stamp_ns):
            T_step = se3.inverse(self.T_odom_base[before]) @ self.T_odom_base[after]
            elapsed_s = (self.stamps_ns[after] - self.stamps_ns[before]) * 1e-9
            filter.drive(planar(T_step), STEP_NOISE_PER_S * elapsed_s)
            while rest and rest[0].stamp_ns <= self.stamps_ns[after]:
                taken = rest.pop(0)
                filter.correct(taken.measured, taken.covariance)
            true = self.truth.at(int(self.stamps_ns[after]))
            if true is not None:
                errors.append(float(np.linalg.norm(filter.state[:2] - true[:2, 3])))
        return np.array(errors)

    def held(self, corrections: Sequence[Correction]) -> NDArray[np.float64]:
        """Return the errors of the last correction alone, without odometry."""
        errors = []
        stamps_ns = np.array([c.stamp_ns for c in corrections])
        for _, after in self._steps(self.poses[0].stamp_ns):
            last = int(np.searchsorted(stamps_ns, self.stamps_ns[after], side="right")) - 1
            true = self.truth.at(int(self.stamps_ns[after]))
            if true is not None and last >= 0:
                errors.append(float(np.linalg.norm(corrections[last].measured[:2] - true[:2, 3])))
        return np.array(errors)

    def _steps(self, start_ns: int) -> Iterator[tuple[int, int]]:
        indices = np.flatnonzero(self.stamps_ns >= start_ns)
        yield from pairwise(int(i) for i in indices)


def recorded_inputs(run: Path, bag: Path, map_folder: Path, gnss_scale: float) -> RecordedInputs:
    """Read a run and its bag. Raises DataError if an input is missing.

    gnss_scale: factor on the sigmas that the receiver claims, whose errors are not independent.
    """
    datum = Map.load(map_folder).datum
    (drive,) = read_drives([bag], datum=datum)
    poses = list(_poses(read_frames(run)))
    if drive.odometry is None or drive.fixes is None or not poses:
        raise DataError(f"bag {bag} has no odometry or no fixes, or run {run} no pose")
    stamps_ns, T_odom_base = drive.odometry.stamps_ns, drive.odometry.T_odom_base
    fixes = list(_fixes(drive.fixes, gnss_scale))
    return RecordedInputs(stamps_ns, T_odom_base, fixes, poses, read_tum(truth_path(bag)))


def _poses(frames: Sequence[FrameResult]) -> Iterator[Correction]:
    for frame in frames:
        if frame.pose is not None and frame.sigma is not None:
            sigmas = [*frame.sigma.xyz_m[:2], np.deg2rad(frame.sigma.rotation_deg[2])]
            measured = planar(frame.pose.matrix())
            yield Correction(frame.stamp_ns, measured, np.diag(np.square(sigmas)))


def _fixes(fixes: RecordedFixes, scale: float) -> Iterator[Correction]:
    each = zip(fixes.stamps_ns, fixes.positions_map, fixes.covariance, strict=True)
    for stamp_ns, position, covariance in each:
        yield Correction(int(stamp_ns), position[:2], covariance[:2, :2] * scale**2)


def fusion(
    run: Annotated[Path, typer.Argument(help="folder of a replay")],
    bag: Annotated[Path, typer.Argument(help="the bag, with its ground truth beside it")],
    map_folder: Annotated[Path, typer.Option("--map", help="map of the replay")],
    outage_s: Annotated[float, typer.Option(min=0, help="length of each outage")] = 6.0,
    gnss_scale: Annotated[float, typer.Option(min=1, help="factor on GNSS sigmas")] = 5.0,
) -> None:
    """Print position errors of odometry, GNSS and poses, and of a filter that fuses them.

    GNSS has an outage in every other stretch of `outage_s`; in the last rows, the camera in the
    stretches between.

    Example: python -m research fusion run kitti_bag --map kitti_map
    """
    inputs = recorded_inputs(run, bag, map_folder, gnss_scale)
    start_ns, first = inputs.poses[0].stamp_ns, inputs.poses[:1]
    fixes = Outages(outage_s, outage_s, 2 * outage_s).spare(inputs.fixes, start_ns)
    poses = Outages(2 * outage_s, outage_s, 2 * outage_s).spare(inputs.poses, start_ns)
    table = Table("taken", "RMS [m]", "p95 [m]", "largest [m]")
    for name, errors in {
        "odometry from the first pose on": inputs.fused(first),
        "the last pose": inputs.held(inputs.poses),
        "GNSS and odometry": inputs.fused(inputs.fixes),
        "GNSS with outages, and odometry": inputs.fused(fixes),
        "poses and odometry": inputs.fused(inputs.poses),
        "poses, GNSS with outages, and odometry": inputs.fused([*inputs.poses, *fixes]),
        "poses with outages, and odometry": inputs.fused(poses),
        "both with outages, and odometry": inputs.fused([*poses, *fixes]),
    }.items():
        figures = np.sqrt(np.mean(errors**2)), np.percentile(errors, 95), errors.max()
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
