"""One smooth trajectory of odometry and fixes, over whole drives at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag.pose_graph import Fixes, PoseGraph, Steps
from pixloc_ros.maps.files.recorded_drive import RecordedDrive, RecordedOdometry, Stamps

STEP_SIGMA_M, STEP_SIGMA_DEG = 0.01, 0.05  # of odometry from keyframe to keyframe, at least
GAP_SIGMA_MPS, GAP_SIGMA_DEG = 5.0, 30.0  # of motion across a gap of the odometry
LOOP_SIGMA_M, LOOP_SIGMA_DEG = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """When and in which drive a pose is wanted."""

    drive: int
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Where images tell one pose relative to another: T_first_second (4, 4)."""

    first: int  # index of a moment
    second: int
    T_first_second: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class SmoothTrajectory:
    """Poses of the vehicle at the moments, and what was found beside them."""

    moments: tuple[Moment, ...]
    T_map_base: Matrix  # (N, 4, 4)
    odometry_scale: tuple[float, ...]  # of each drive: true metres per metre of odometry
    fix_delay_s: tuple[float, ...]  # of each drive


def smooth_trajectory(
    drives: Sequence[RecordedDrive],
    moments: Sequence[Moment],
    loops: Sequence[Loop],
    config: MappingConfig,
    priors: PriorsConfig,
) -> SmoothTrajectory:
    """Poses (N, 4, 4) at moments, sorted by drive and stamp, of drives that have odometry.

    Without fixes the map's frame is that of the first drive's odometry, level as that is, with the
    first pose at zero. Raises MapError for several drives without fixes.
    """
    if len(drives) > 1 and any(drive.fixes is None for drive in drives):
        raise MapError(
            "of several drives each needs GNSS fixes, which say where they are to each other"
        )
    steps = [_odometry_steps(drives, moments, priors)]
    if loops:
        steps.append(_loop_steps(loops, moments))
    fixes = [_fixes_of(d, drive, moments, config) for d, drive in enumerate(drives) if drive.fixes]
    start = np.concatenate(
        [_first_guess(d, drive, moments, fixes) for d, drive in enumerate(drives)]
    )
    graph = PoseGraph(len(drives), steps, [f for f in fixes if f is not None])
    T_map_base, scale, delay_s = graph.solve(start, _up_in_base(drives, moments), config)
    return SmoothTrajectory(
        tuple(moments), T_map_base, tuple(scale.tolist()), tuple(delay_s.tolist())
    )


def join_steps(
    drives: Sequence[RecordedDrive],
    moments: Sequence[Moment],
    T_start: Matrix,
    steps: tuple[NDArray[np.int64], NDArray[np.int64], Matrix],
    loops: Sequence[Loop],
    config: MappingConfig,
) -> Matrix:
    """Poses (N, 4, 4) of the vehicle, near those to begin with, that fit steps and loops best.

    steps: from moments (K,), to moments (K,), and poses (K, 4, 4) of these in those. Positions are
    held near those of the start, as bundle adjustment holds them (`mapping.position_sigma_m`).
    """
    first, second, T_step = steps
    drive_of = np.array([moment.drive for moment in moments], np.int64)
    kept = Steps(
        first=first,
        second=second,
        T=T_step,
        sigma_m=np.full(len(first), STEP_SIGMA_M),
        sigma_rad=np.full(len(first), np.deg2rad(STEP_SIGMA_DEG)),
        scaled=np.zeros(len(first), bool),
        drive=drive_of[first],
    )
    count = len(moments)
    held = Fixes(
        moment=np.arange(count),
        position=T_start[:, :3, 3].copy(),
        weight=np.tile(np.eye(3) / config.position_sigma_m, (count, 1, 1)),
        lever=np.zeros((count, 3)),
        velocity=np.zeros((count, 3)),
        drive=drive_of,
    )
    every = [kept, _loop_steps(loops, moments)] if loops else [kept]
    graph = PoseGraph(len(drives), every, [held])
    return graph.solve(T_start, _up_in_base(drives, moments), config)[0]


def fix_errors(
    drives: Sequence[RecordedDrive], found: SmoothTrajectory, config: MappingConfig
) -> dict[int, tuple[Stamps, Matrix]]:
    """By drive, stamps (K,) of its fixes and how far (K, 3) in the map they are off the poses."""
    errors = {}
    for number, drive in enumerate(drives):
        fixes = _fixes_of(number, drive, found.moments, config) if drive.fixes else None
        if fixes is None or drive.fixes is None:
            continue
        T = found.T_map_base[fixes.moment]
        lever = fixes.lever - found.fix_delay_s[number] * fixes.velocity
        antenna = T[:, :3, 3] + np.einsum("kij,kj->ki", T[:, :3, :3], lever)
        errors[number] = (_stamps_used(drive), fixes.position - antenna)
    return errors


def _stamps_used(drive: RecordedDrive) -> Stamps:
    assert drive.fixes is not None
    return drive.fixes.stamps_ns[_usable(drive)]


def _odometry_steps(
    drives: Sequence[RecordedDrive], moments: Sequence[Moment], priors: PriorsConfig
) -> Steps:
    """From each moment to the next of the same drive."""
    first, T, sigma_m, sigma_rad, scaled = [], [], [], [], []
    for number, drive in enumerate(drives):
        index, stamps_ns = _of_drive(number, moments)
        odometry = _odometry(drive)
        poses, epoch = odometry.at(stamps_ns), odometry.epoch_at(stamps_ns)
        step = se3.inverse(poses[:-1]) @ poses[1:]
        length_m = np.linalg.norm(step[:, :3, 3], axis=-1)
        gap_s = np.diff(stamps_ns) / 1e9
        known = epoch[1:] == epoch[:-1]
        step[~known] = np.eye(4)
        share = priors.odometry_position_sigma_share
        turn_deg = priors.odometry_heading_sigma_deg_per_m * length_m
        first += index[:-1].tolist()
        T.append(step)
        sigma_m.append(
            np.where(known, np.hypot(STEP_SIGMA_M, share * length_m), GAP_SIGMA_MPS * gap_s)
        )
        sigma_rad.append(
            np.deg2rad(np.where(known, np.hypot(STEP_SIGMA_DEG, turn_deg), GAP_SIGMA_DEG))
        )
        scaled.append(known)
    start = np.array(first, np.int64)
    return Steps(
        first=start,
        second=start + 1,
        T=np.concatenate(T),
        sigma_m=np.maximum(np.concatenate(sigma_m), STEP_SIGMA_M),
        sigma_rad=np.concatenate(sigma_rad),
        scaled=np.concatenate(scaled),
        drive=np.array([moments[i].drive for i in first], np.int64),
    )


def _loop_steps(loops: Sequence[Loop], moments: Sequence[Moment]) -> Steps:
    count = len(loops)
    return Steps(
        first=np.array([loop.first for loop in loops], np.int64),
        second=np.array([loop.second for loop in loops], np.int64),
        T=np.stack([loop.T_first_second for loop in loops]),
        sigma_m=np.full(count, LOOP_SIGMA_M),
        sigma_rad=np.full(count, np.deg2rad(LOOP_SIGMA_DEG)),
        scaled=np.zeros(count, bool),
        drive=np.array([moments[loop.first].drive for loop in loops], np.int64),
        robust=True,
    )


def _fixes_of(
    number: int, drive: RecordedDrive, moments: Sequence[Moment], config: MappingConfig
) -> Fixes | None:
    """The fixes of a drive that odometry joins to a moment; None where there is none."""
    fixes, odometry = drive.fixes, _odometry(drive)
    assert fixes is not None
    use = _usable(drive)
    if not use.any():
        return None
    stamps_ns = fixes.stamps_ns[use]
    index, own_ns = _of_drive(number, moments)
    nearest = _nearest(own_ns, stamps_ns)
    T_moment_then = se3.inverse(odometry.at(own_ns[nearest])) @ odometry.at(stamps_ns)
    antenna = fixes.antenna_base[use]
    speed, turn = odometry.velocity_base(stamps_ns)
    velocity = speed + np.cross(turn, antenna)
    covariance = fixes.covariance[use] * _alike(stamps_ns, config.fix_correlation_s)[:, None, None]
    return Fixes(
        moment=index[nearest],
        position=fixes.positions_map[use],
        weight=np.linalg.inv(np.linalg.cholesky(covariance)),
        lever=T_moment_then[:, :3, 3] + np.einsum("kij,kj->ki", T_moment_then[:, :3, :3], antenna),
        velocity=np.einsum("kij,kj->ki", T_moment_then[:, :3, :3], velocity),
        drive=np.full(int(use.sum()), number, np.int64),
    )


def _usable(drive: RecordedDrive) -> NDArray[np.bool_]:
    assert drive.fixes is not None
    return _odometry(drive).covers(drive.fixes.stamps_ns)


def _alike(stamps_ns: Stamps, within_s: float) -> Matrix:
    """(N,) how many fixes lie within so many seconds of each, itself included."""
    half_ns = round(within_s / 2 * 1e9)
    last = np.searchsorted(stamps_ns, stamps_ns + half_ns, "right")
    return np.asarray(last - np.searchsorted(stamps_ns, stamps_ns - half_ns), np.float64)


def _nearest(sorted_ns: Stamps, stamps_ns: Stamps) -> NDArray[np.int64]:
    after = np.searchsorted(sorted_ns, stamps_ns).clip(1, max(len(sorted_ns) - 1, 1))
    after = np.minimum(after, len(sorted_ns) - 1)
    before = np.maximum(after - 1, 0)
    nearer = stamps_ns - sorted_ns[before] < sorted_ns[after] - stamps_ns
    return np.asarray(np.where(nearer, before, after), np.int64)


def _first_guess(
    number: int, drive: RecordedDrive, moments: Sequence[Moment], fixes: Sequence[Fixes | None]
) -> Matrix:
    """Poses by odometry, laid over the fixes in the plane; from zero where there are none."""
    index, stamps_ns = _of_drive(number, moments)
    T = _odometry(drive).at(stamps_ns)
    own = next((f for f in fixes if f is not None and (f.drive == number).all()), None)
    if own is None:
        yaw = np.arctan2(T[0, 1, 0], T[0, 0, 0])
        R = Rotation.from_euler("z", -yaw).as_matrix()
        return se3.make(R, -R @ T[0, :3, 3]) @ T
    local = T[own.moment - index[0]]
    path = local[:, :3, 3] + np.einsum("kij,kj->ki", local[:, :3, :3], own.lever)
    a, b = path - np.median(path, axis=0), own.position - np.median(own.position, axis=0)
    R = Rotation.from_euler("z", se3.turn_rad(a, b)).as_matrix()
    shift = np.median(own.position - path @ R.T, axis=0)
    return se3.make(R, shift) @ T


def _up_in_base(drives: Sequence[RecordedDrive], moments: Sequence[Moment]) -> Matrix:
    """(N, 3) up by odometry, in the vehicle's axes."""
    poses = []
    for number, drive in enumerate(drives):
        _, stamps_ns = _of_drive(number, moments)
        poses.append(_odometry(drive).at(stamps_ns)[:, 2, :3])
    return np.concatenate(poses)


def _odometry(drive: RecordedDrive) -> RecordedOdometry:
    assert drive.odometry is not None
    return drive.odometry


def _of_drive(number: int, moments: Sequence[Moment]) -> tuple[NDArray[np.int64], Stamps]:
    """Index and stamp (K,) of each moment of a drive."""
    index = np.flatnonzero([moment.drive == number for moment in moments])
    return index, np.array([moments[int(i)].stamp_ns for i in index], np.int64)
