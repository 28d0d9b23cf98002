"""One smooth trajectory of odometry and fixes, over whole drives at once.

Gauss-Newton on the poses of all keyframes, the factor of odometry's distances and the delay of the
fixes of each drive; robust weights (Cauchy) for fixes and loops. Rotations are disturbed on the
right: R <- R exp(w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.recorded_drive import RecordedDrive, RecordedOdometry, Stamps

ITERATIONS = 30
DONE = 1e-6  # metres and radians of the last step
STEP_SIGMA_M, STEP_SIGMA_DEG = 0.01, 0.05  # of odometry from keyframe to keyframe, at least
TILT_SIGMA_DEG = 2.0  # odometry's z axis is up (REP 105), and the map's is
GAP_SIGMA_MPS, GAP_SIGMA_DEG = 5.0, 30.0  # of motion across a gap of the odometry
LOOP_SIGMA_M, LOOP_SIGMA_DEG = 0.1, 0.5
GAUGE_SIGMA = 1e-3  # of the first pose where nothing else tells a place
LEVEL = [0, 1]  # components of an axis that say how it is tilted


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


@dataclass(frozen=True, slots=True)
class _Fixes:
    """Fixes at the moment before them: K rows."""

    moment: NDArray[np.int64]
    position: Matrix  # (K, 3) in the map
    weight: Matrix  # (K, 3, 3) square root of information
    lever: Matrix  # (K, 3) antenna in the axes of the vehicle at the moment
    velocity: Matrix  # (K, 3) of the antenna, in the same axes
    drive: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Steps:
    """Relative poses between moments: K rows."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    T: Matrix  # (K, 4, 4) first from second
    sigma_m: Matrix  # (K,)
    sigma_rad: Matrix  # (K,)
    scaled: NDArray[np.bool_]  # whether the odometry's factor applies
    drive: NDArray[np.int64]
    robust: bool = False


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
    problem = _Problem(tuple(moments), len(drives), steps, [f for f in fixes if f is not None])
    return problem.solve(start, drives, config)


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
    kept = _Steps(
        first=first,
        second=second,
        T=T_step,
        sigma_m=np.full(len(first), STEP_SIGMA_M),
        sigma_rad=np.full(len(first), np.deg2rad(STEP_SIGMA_DEG)),
        scaled=np.zeros(len(first), bool),
        drive=drive_of[first],
    )
    count = len(moments)
    held = _Fixes(
        moment=np.arange(count),
        position=T_start[:, :3, 3].copy(),
        weight=np.tile(np.eye(3) / config.position_sigma_m, (count, 1, 1)),
        lever=np.zeros((count, 3)),
        velocity=np.zeros((count, 3)),
        drive=drive_of,
    )
    every = [kept, _loop_steps(loops, moments)] if loops else [kept]
    problem = _Problem(tuple(moments), len(drives), every, [held])
    return problem.solve(T_start, drives, config).T_map_base


@dataclass(slots=True)
class _Problem:
    moments: tuple[Moment, ...]
    drives: int
    steps: Sequence[_Steps]
    fixes: Sequence[_Fixes]
    _rows: list[NDArray] = field(default_factory=list)
    _columns: list[NDArray] = field(default_factory=list)
    _values: list[NDArray] = field(default_factory=list)
    _residuals: list[NDArray] = field(default_factory=list)
    _count: int = 0

    def solve(
        self, T: Matrix, drives: Sequence[RecordedDrive], config: MappingConfig
    ) -> SmoothTrajectory:
        T, up = T.copy(), _up_in_base(drives, self.moments)
        scale, delay_s = np.ones(self.drives), np.zeros(self.drives)
        sizes = 6 * len(T) + 2 * self.drives
        for _ in range(ITERATIONS):
            self._rows, self._columns, self._values = [], [], []
            self._residuals, self._count = [], 0
            for steps in self.steps:
                self._add_steps(steps, T, scale)
            for fixes in self.fixes:
                self._add_fixes(fixes, T, delay_s)
            self._add_tilt(T, up)
            self._add_globals(scale, delay_s, config)
            if not self.fixes:
                self._add_gauge(T)
            J = sparse.csr_matrix(
                (
                    np.concatenate(self._values),
                    (np.concatenate(self._rows), np.concatenate(self._columns)),
                ),
                shape=(self._count, sizes),
            )
            step = spsolve(
                (J.T @ J + 1e-9 * sparse.eye(sizes)).tocsc(), -J.T @ np.concatenate(self._residuals)
            )
            poses = step[: 6 * len(T)].reshape(-1, 6)
            T[:, :3, 3] += poses[:, :3]
            T[:, :3, :3] = T[:, :3, :3] @ Rotation.from_rotvec(poses[:, 3:]).as_matrix()
            scale += step[6 * len(T) : 6 * len(T) + self.drives]
            delay_s += step[6 * len(T) + self.drives :]
            if np.abs(step).max() < DONE:
                break
        return SmoothTrajectory(self.moments, T, tuple(scale.tolist()), tuple(delay_s.tolist()))

    def _add_steps(self, steps: _Steps, T: Matrix, scale: Matrix) -> None:
        i, j = steps.first, steps.second
        R_iT, R_j = np.swapaxes(T[i, :3, :3], -1, -2), T[j, :3, :3]
        between = np.einsum("kij,kj->ki", R_iT, T[j, :3, 3] - T[i, :3, 3])
        factor = np.where(steps.scaled, scale[steps.drive], 1.0)
        error_m = between - factor[:, None] * steps.T[:, :3, 3]
        relative = R_iT @ R_j
        error_rad = Rotation.from_matrix(
            np.swapaxes(steps.T[:, :3, :3], -1, -2) @ relative
        ).as_rotvec()
        whitened = np.concatenate(
            [error_m / steps.sigma_m[:, None], error_rad / steps.sigma_rad[:, None]], axis=1
        )
        robust = _cauchy(whitened) if steps.robust else np.ones(len(i))
        w_m, w_rad = robust / steps.sigma_m, robust / steps.sigma_rad
        self._block(
            error_m * w_m[:, None],
            [
                (6 * i, -R_iT * w_m[:, None, None]),
                (6 * j, R_iT * w_m[:, None, None]),
                (6 * i + 3, skew(between) * w_m[:, None, None]),
                (
                    6 * len(T) + steps.drive,
                    (-steps.T[:, :3, 3] * steps.scaled[:, None] * w_m[:, None])[..., None],
                ),
            ],
        )
        eye = np.tile(np.eye(3), (len(i), 1, 1))
        self._block(
            error_rad * w_rad[:, None],
            [
                (6 * j + 3, eye * w_rad[:, None, None]),
                (6 * i + 3, -np.swapaxes(relative, -1, -2) * w_rad[:, None, None]),
            ],
        )

    def _add_fixes(self, fixes: _Fixes, T: Matrix, delay_s: Matrix) -> None:
        i = fixes.moment
        R = T[i, :3, :3]
        lever = fixes.lever - delay_s[fixes.drive][:, None] * fixes.velocity
        error = T[i, :3, 3] + np.einsum("kij,kj->ki", R, lever) - fixes.position
        whitened = np.einsum("kij,kj->ki", fixes.weight, error)
        W = fixes.weight * _cauchy(whitened)[:, None, None]
        velocity = np.einsum("kij,kj->ki", R, fixes.velocity)
        self._block(
            np.einsum("kij,kj->ki", W, error),
            [
                (6 * i, W),
                (6 * i + 3, -W @ R @ skew(lever)),
                (6 * len(T) + self.drives + fixes.drive, -W @ velocity[..., None]),
            ],
        )

    def _add_tilt(self, T: Matrix, up_base: Matrix) -> None:
        """The map's up, in the vehicle's axes, is what the odometry says."""
        R_T = np.swapaxes(T[:, :3, :3], -1, -2)
        up = R_T[:, :, 2]
        weight = 1 / np.deg2rad(TILT_SIGMA_DEG)
        self._block(
            (up - up_base)[:, LEVEL] * weight,
            [(6 * np.arange(len(T)) + 3, skew(up)[:, LEVEL] * weight)],
        )

    def _add_globals(self, scale: Matrix, delay_s: Matrix, config: MappingConfig) -> None:
        first = 6 * len(self.moments)
        scale_sigma = max(config.odometry_scale_sigma, 1e-9) if self.fixes else 1e-9
        delay_sigma_s = max(config.fix_delay_sigma_s, 1e-9)
        index = np.arange(self.drives)
        for values, sigma, offset in (
            (scale - 1.0, scale_sigma, first),
            (delay_s, delay_sigma_s, first + self.drives),
        ):
            self._block(
                values[:, None] / sigma, [(offset + index, np.full((self.drives, 1, 1), 1 / sigma))]
            )

    def _add_gauge(self, T: Matrix) -> None:
        """The first pose is at zero, and heads along x."""
        R = T[0, :3, :3]
        yaw = np.arctan2(R[1, 0], R[0, 0])
        row = np.array([[R[2, 0], R[2, 1], R[2, 2]]])  # the map's z in the vehicle's axes
        self._block(T[:1, :3, 3] / GAUGE_SIGMA, [(np.array([0]), np.eye(3)[None] / GAUGE_SIGMA)])
        self._block(np.array([[yaw / GAUGE_SIGMA]]), [(np.array([3]), row[None] / GAUGE_SIGMA)])

    def _block(self, residual: Matrix, parts: Sequence[tuple[NDArray, Matrix]]) -> None:
        """Residuals (K, R), with Jacobians (K, R, C) at columns that begin at (K,)."""
        count, height = residual.shape
        rows = self._count + np.arange(count * height).reshape(count, height)
        for begin, J in parts:
            width = J.shape[-1]
            self._rows.append(np.repeat(rows[..., None], width, -1).ravel())
            columns = np.asarray(begin)[:, None, None] + np.arange(width)
            self._columns.append(np.broadcast_to(columns, J.shape).ravel())
            self._values.append(np.ascontiguousarray(J).ravel())
        self._residuals.append(residual.ravel())
        self._count += count * height


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
) -> _Steps:
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
    return _Steps(
        first=start,
        second=start + 1,
        T=np.concatenate(T),
        sigma_m=np.maximum(np.concatenate(sigma_m), STEP_SIGMA_M),
        sigma_rad=np.concatenate(sigma_rad),
        scaled=np.concatenate(scaled),
        drive=np.array([moments[i].drive for i in first], np.int64),
    )


def _loop_steps(loops: Sequence[Loop], moments: Sequence[Moment]) -> _Steps:
    count = len(loops)
    return _Steps(
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
) -> _Fixes | None:
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
    return _Fixes(
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
    number: int, drive: RecordedDrive, moments: Sequence[Moment], fixes: Sequence[_Fixes | None]
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


def _cauchy(whitened: Matrix) -> Matrix:
    """(K,) factors of residuals, one where they are small."""
    return np.asarray(1 / np.sqrt(1 + (whitened**2).mean(-1) / 4))
