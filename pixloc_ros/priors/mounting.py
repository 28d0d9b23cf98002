"""Where a camera really sits on the vehicle, and by how much its stamps are off.

A camera that is localized on a map tells how the vehicle moves from frame to frame, and so does
odometry. Both agree only for the right mounting and the right time offset (hand-eye calibration:
Daniilidis, IJRR 1999; with time: Furgale et al., IROS 2013). Here by generalized least squares
over the steps between frames: a frame's error enters the step before it and the step after it, so
that errors of frames do not add up along the drive, as those of odometry do. How noisy both are is
found by maximum likelihood, so that the sigmas need no settings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.spatial.transform import Rotation

from pixloc_ros.errors import DataError
from pixloc_ros.geometry import covariance, se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.recorded_drive import RecordedOdometry, Stamps
from pixloc_ros.types import Estimate

MIN_STEPS = 20
BAND = 12  # diagonals that two blocks of six beside each other take
MAX_STEP_S = 2.0  # between frames whose motion is compared
ROUNDS = 3  # of linearization
OUTLIER_SIGMAS = 4.0  # of a component, beyond which a step is left out
CORRELATED_STEPS = 10  # over how many steps errors of frames may be alike: they share keyframes

# The order of all that is estimated; angles in radians about the axes of the vehicle.
COMPONENTS = ("x", "y", "z", "roll", "pitch", "yaw", "time offset", "odometry factor")
PRIOR_SIGMA = np.array([0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.3, 0.1])
# A component with a larger sigma is not determined by the drive and stays as it was.
MAX_SIGMA = np.array([0.03] * 3 + [np.deg2rad(0.2)] * 3 + [0.005, np.inf])
# That of time is long: over short times odometry's noise would look like motion.
# What an operator is told of: 2 cm, 0.2 deg, 5 ms, where it is that many sigmas.
TOLERABLE = np.array([0.02] * 3 + [np.deg2rad(0.2)] * 3 + [0.005, np.inf])
SURE_SIGMAS = 5.0
DERIVATIVE_STEP = np.array([1e-4] * 6 + [0.1, 1e-4])

# Noise: of odometry ahead and across in metres, of tilt and of heading in radians, each per root
# of a second; and a factor for the sigmas of the frames' poses.
TYPICAL_NOISE = np.array([0.02, 0.005, np.deg2rad(0.03), np.deg2rad(0.03), 1.0])
LEAST_NOISE = np.array([0.003, 0.003, np.deg2rad(0.01), np.deg2rad(0.01), 0.3])
NOISE_STEP = 1e-4  # of its logarithm, for derivatives
LEAST_CURVATURE = 0.1  # of the logarithm of noise that explains nothing


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedDrive:
    """Poses of the vehicle at the stamps of images, as the localizer found them."""

    stamps_ns: Stamps  # (N,) rising
    T_map_base: Matrix  # (N, 4, 4)
    covariance: Matrix  # (N, 6, 6) ROS order, map axes
    T_base_cam: Matrix  # (4, 4) the mounting with which they were found

    @classmethod
    def of(cls, estimates: Iterable[Estimate], T_base_cam: Matrix) -> LocalizedDrive:
        """The frames with a pose, in the order of their stamps."""
        ok = sorted((e for e in estimates if e.ok), key=lambda estimate: estimate.stamp_ns)
        return cls(
            stamps_ns=np.array([e.stamp_ns for e in ok], np.int64),
            T_map_base=np.array([e.T_map_base for e in ok]).reshape(-1, 4, 4),
            covariance=np.array([e.covariance for e in ok]).reshape(-1, 6, 6),
            T_base_cam=T_base_cam,
        )

    def part(self, chosen: slice) -> LocalizedDrive:
        """Some of the frames."""
        return replace(
            self,
            stamps_ns=self.stamps_ns[chosen],
            T_map_base=self.T_map_base[chosen],
            covariance=self.covariance[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class MountingEstimate:
    """What a drive tells, in the order of COMPONENTS.

    values (8,): metres and radians, in vehicle axes, by which the camera is elsewhere than its
    mounting said; seconds to be added to the stamps of images, so that they are in odometry's time;
    and true metres per metre of odometry, minus one.
    """

    values: Matrix
    sigmas: Matrix  # (8,) infinite for what the drive does not determine
    steps: int
    outliers: int

    @property
    def determined(self) -> NDArray[np.bool_]:
        """(8,) the others stay as they were."""
        return np.isfinite(self.sigmas)

    def complaint(self) -> str:
        """One line on a mounting or a clock that is surely off by more than matters, or ""."""
        surely = np.abs(self.values) > np.fmax(TOLERABLE, SURE_SIGMAS * self.sigmas)
        off = [_in_words(int(i), self.values[i]) for i in np.flatnonzero(surely)]
        return f"by its odometry the camera is off by {', '.join(off)}" if off else ""


def estimate_mounting(
    drive: LocalizedDrive, odometry: RecordedOdometry, pause_s: float = 0.0
) -> MountingEstimate:
    """Find the mounting and the time offset for which poses and odometry agree.

    pause_s: sleep so long after each small part of the work, so that other threads of a program
    need not wait for the interpreter.

    Raises DataError for a drive with too few frames that odometry covers.
    """
    steps = _DriveSteps.of(drive, odometry, pause_s)
    if len(steps.first) < MIN_STEPS:
        raise DataError(
            f"{len(steps.first)} pairs of localized frames follow each other within "
            f"{MAX_STEP_S:g} s and have odometry; at least {MIN_STEPS} are needed: take a longer "
            f"drive"
        )
    values, sigmas, noise = np.zeros(8), np.full(8, np.inf), TYPICAL_NOISE
    free = np.ones(8, bool)
    while free.any():
        noise = steps.likeliest_noise(values, free, noise)
        for _ in range(ROUNDS):
            values, sigmas = steps.solve(values, free, noise)
            steps = steps.without_outliers(values, noise)
        excess = np.where(free, sigmas / MAX_SIGMA, 0.0)
        if excess.max() <= 1.0:
            break
        worst = np.argmax(excess)
        free[worst], values[worst], sigmas[worst] = False, 0.0, np.inf
    return MountingEstimate(values, sigmas, len(steps.first), steps.outliers)


def disagreement(
    drive: LocalizedDrive, odometry: RecordedOdometry, values: Matrix
) -> tuple[float, float]:
    """Root mean square, in metres and radians, of how poses and odometry differ in their steps."""
    off = _DriveSteps.of(drive, odometry).residuals(values)
    position_m, rotation_rad = np.sqrt((off.reshape(-1, 2, 3) ** 2).sum(-1).mean(0))
    return float(position_m), float(rotation_rad)


def corrected(T_base_cam: Matrix, values: Matrix) -> Matrix:
    """The mounting (4, 4) moved and turned, in vehicle axes, by the values of an estimate."""
    turn = Rotation.from_rotvec(values[3:6]).as_matrix()
    return se3.make(turn @ T_base_cam[:3, :3], T_base_cam[:3, 3] + values[:3])


@dataclass(frozen=True, slots=True, eq=False)
class _DriveSteps:
    """Steps from one localized frame to the next, K of them."""

    drive: LocalizedDrive
    odometry: RecordedOdometry
    first: NDArray[np.int64]
    of_poses: Matrix  # covariance of residuals by the errors of poses, as `covariance` gives it
    outliers: int = 0
    pause_s: float = 0.0  # after each small part of the work

    @classmethod
    def of(
        cls, drive: LocalizedDrive, odometry: RecordedOdometry, pause_s: float = 0.0
    ) -> _DriveSteps:
        known, epoch = odometry.covers(drive.stamps_ns), odometry.epoch_at(drive.stamps_ns)
        near = np.diff(drive.stamps_ns) < MAX_STEP_S * 1e9
        first = np.flatnonzero(near & known[:-1] & known[1:] & (np.diff(epoch) == 0))
        of_poses = _covariance_of_poses(drive, first)
        return cls(drive, odometry, first, of_poses, pause_s=pause_s)

    @property
    def elapsed_s(self) -> Matrix:
        stamps_ns = self.drive.stamps_ns
        return (stamps_ns[self.first + 1] - stamps_ns[self.first]) / 1e9

    def residuals(self, values: Matrix) -> Matrix:
        """(K, 6) from where odometry ends a step to where the poses do, in vehicle axes."""
        return self._residuals(values, self._by_odometry(values[6]))

    def jacobian(self, values: Matrix) -> Matrix:
        """(6 K, 8) of the residuals."""
        by_odometry = cache(self._by_odometry)  # only one of the components is an offset in time

        def residuals(moved: Matrix) -> Matrix:
            self._pause()
            return self._residuals(moved, by_odometry(moved[6]))

        columns = [
            (residuals(values + step) - residuals(values - step)) / (2 * step.sum())
            for step in np.diag(DERIVATIVE_STEP)
        ]
        return np.stack([column.ravel() for column in columns], axis=1)

    def _by_odometry(self, offset_s: float) -> Matrix:
        """The steps (K, 4, 4) as odometry has them, with an offset added to the stamps."""
        T_odom = self.odometry.at(self.drive.stamps_ns + round(offset_s * 1e9))
        return se3.inverse(T_odom[self.first]) @ T_odom[self.first + 1]

    def _residuals(self, values: Matrix, by_odometry: Matrix) -> Matrix:
        by_odometry = by_odometry.copy()
        by_odometry[:, :3, 3] *= 1.0 + values[7]
        T_base_cam = self.drive.T_base_cam
        T = self.drive.T_map_base @ T_base_cam @ se3.inverse(corrected(T_base_cam, values))
        off = se3.inverse(by_odometry) @ se3.inverse(T[self.first]) @ T[self.first + 1]
        turn = Rotation.from_matrix(off[:, :3, :3]).as_rotvec()
        return np.concatenate([off[:, :3, 3], turn], axis=1)

    def covariance(self, noise: Matrix) -> Matrix:
        """That of the residuals: diagonals (BAND, 6 K) from the main one down."""
        ahead, across, tilt, heading, factor = noise
        per_s = np.array([ahead, across, across, tilt, tilt, heading]) ** 2
        band: Matrix = factor**2 * self.of_poses
        band[0] += (self.elapsed_s[:, None] * per_s).ravel()
        return band

    def likeliest_noise(self, values: Matrix, free: NDArray[np.bool_], start: Matrix) -> Matrix:
        """Noise (5,) that explains the residuals best, whatever the free components are.

        Gauss-Newton steps in its logarithm, within a trust region.
        """
        r, J = self.residuals(values).ravel(), self.jacobian(values)[:, free]
        prior = np.diag(PRIOR_SIGMA[free] ** -2.0)

        def cost(log_noise: Matrix) -> float:
            self._pause()
            root = cholesky_banded(self.covariance(_believed(log_noise)), lower=True)
            weighted = cho_solve_banded((root, True), np.column_stack([r, J]))
            g, information = J.T @ weighted[:, 0], J.T @ weighted[:, 1:] + prior
            explained = g @ np.linalg.solve(information, g)
            log_det = 2.0 * np.log(root[0]).sum() + np.linalg.slogdet(information)[1]
            return float(log_det + r @ weighted[:, 0] - explained)

        def gradient(log_noise: Matrix) -> Matrix:
            at, steps = cost(log_noise), NOISE_STEP * np.eye(len(log_noise))
            return np.array([cost(log_noise + step) - at for step in steps]) / NOISE_STEP

        found = optimize.minimize(
            cost,
            np.log(start),
            method="dogleg",
            jac=gradient,
            hess=self._curvature,
            options={"maxiter": 30, "gtol": 0.5, "max_trust_radius": 2.0},
        )
        return _believed(found.x)

    def _curvature(self, log_noise: Matrix) -> Matrix:
        """Expected second derivatives (5, 5) of the cost, as if all residuals were independent."""
        alone = [self.covariance(each)[0] for each in np.diag(np.exp(log_noise))]
        shares = np.array(alone) / self.covariance(_believed(log_noise))[0]
        return 4.0 * shares @ shares.T + LEAST_CURVATURE * np.eye(len(alone))

    def _pause(self) -> None:
        if self.pause_s:
            time.sleep(self.pause_s)

    def solve(
        self, values: Matrix, free: NDArray[np.bool_], noise: Matrix
    ) -> tuple[Matrix, Matrix]:
        """One step of Gauss-Newton: values and sigmas (8,), infinite where they are not free."""
        r, J = self.residuals(values).ravel(), self.jacobian(values)[:, free]
        root = cholesky_banded(self.covariance(noise), lower=True), True
        prior = np.diag(PRIOR_SIGMA[free] ** -2.0)
        weighted = cho_solve_banded(root, J)
        inverse = np.linalg.inv(J.T @ weighted + prior)
        step = inverse @ (weighted.T @ r + prior @ values[free])
        spread = inverse @ _spread_of_scores(J, cho_solve_banded(root, r - J @ step)) @ inverse
        moved, sigmas = values.copy(), np.full(8, np.inf)
        moved[free] -= step
        sigmas[free] = np.sqrt(np.maximum(np.diag(inverse), np.diag(spread)))
        return moved, sigmas

    def without_outliers(self, values: Matrix, noise: Matrix) -> _DriveSteps:
        """The same without steps that are far off in any component."""
        sigmas = np.sqrt(self.covariance(noise)[0]).reshape(-1, 6)
        kept = (np.abs(self.residuals(values)) < OUTLIER_SIGMAS * sigmas).all(axis=1)
        if kept.all():
            return self
        first = self.first[kept]
        outliers = self.outliers + int((~kept).sum())
        return replace(
            self,
            first=first,
            outliers=outliers,
            of_poses=_covariance_of_poses(self.drive, first),
        )


def _spread_of_scores(J: Matrix, weighted: Matrix) -> Matrix:
    """Covariance of the gradient by what it varied, steps near each other being correlated
    (Newey and West, Econometrica 1987)."""
    scores = (J * weighted[:, None]).reshape(-1, 6, J.shape[1]).sum(1)
    spread: Matrix = scores.T @ scores
    for lag in range(1, min(CORRELATED_STEPS, len(scores))):
        both = scores[lag:].T @ scores[:-lag]
        spread += (1.0 - lag / CORRELATED_STEPS) * (both + both.T)
    return spread


def _covariance_of_poses(drive: LocalizedDrive, first: NDArray[np.int64]) -> Matrix:
    """Diagonals (BAND, 6 K): an error of a pose ends one step and begins the next."""
    T, steps, poses = drive.T_map_base, np.arange(len(first)), np.arange(len(drive.T_map_base))
    shape = 6 * len(steps), 6 * len(poses)
    begins = -_adjoint(se3.inverse(T[first + 1]) @ T[first])
    ends = np.tile(np.eye(6), (len(first), 1, 1))
    J = _blocks(begins, steps, first, shape) + _blocks(ends, steps, first + 1, shape)
    turn = np.kron(np.eye(2), se3.inverse(T)[:, :3, :3])
    turned = turn @ drive.covariance @ turn.mT
    full = sparse.tril(J @ _blocks(turned, poses, poses, (shape[1], shape[1])) @ J.T).tocoo()
    band = np.zeros((BAND, shape[0]))
    band[full.row - full.col, full.col] = full.data
    return band


def _believed(log_noise: Matrix) -> Matrix:
    noise: Matrix = np.hypot(np.exp(log_noise), LEAST_NOISE)
    return noise


def _in_words(component: int, value: float) -> str:
    name = COMPONENTS[component]
    if name in ("x", "y", "z"):
        return f"{100 * value:+.0f} cm in {name}"
    if name in ("roll", "pitch", "yaw"):
        return f"{np.rad2deg(value):+.2f} deg in {name}"
    return f"{1000 * value:+.0f} ms in its stamps"


def _adjoint(T: Matrix) -> Matrix:
    """(K, 6, 6) by which small motions, translation first, change frames."""
    R, out = T[:, :3, :3], np.zeros((len(T), 6, 6))
    out[:, :3, :3] = out[:, 3:, 3:] = R
    out[:, :3, 3:] = covariance.skew(T[:, :3, 3]) @ R
    return out


def _blocks(
    blocks: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_array:
    """Blocks (K, 6, 6) at rows and columns of blocks."""
    row, column = np.indices((6, 6))
    at = 6 * rows[:, None, None] + row, 6 * columns[:, None, None] + column
    return sparse.csr_array((blocks.ravel(), (at[0].ravel(), at[1].ravel())), shape=shape)
