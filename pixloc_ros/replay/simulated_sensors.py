"""Simulate odometry and GNSS along a true path, with noise as measured on real drives.

Measured: wheel speed biased by -0.9 % with 0.06 m/s noise (60 s, 1 km); a u-blox receiver at 10 Hz
with a mean horizontal error of 1.45 m at its own stamps, of which all but 0.54 m is due to 100 ms
of latency, and 1.1 m too high; a phone at 0.5 Hz with 3.3 m. The heading rate noise is that of a
consumer gyro.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

# The mean norm of a 2D Gaussian vector, in sigmas per axis (Rayleigh).
RAYLEIGH_MEAN = float(np.sqrt(np.pi / 2))


@dataclass(frozen=True, slots=True)
class OdometryModel:
    """Wheel encoders with a gyro: increments in 6 degrees of freedom.

    Speed has a proportional error and white noise along the direction of travel; the heading drifts
    by white rate noise. Roll and pitch, and hence height, are exact, as from an IMU. Both sigmas
    refer to averages over `averaging_s`, so that drift does not depend on the rate.
    """

    rate_hz: float = 50.0
    speed_bias_share: float = -0.009
    speed_sigma_mps: float = 0.06
    heading_rate_sigma_deg_per_s: float = 0.1
    averaging_s: float = 0.1


@dataclass(frozen=True, slots=True)
class GnssModel:
    """A receiver whose error varies slowly (Gauss-Markov), with latency and a bias."""

    rate_hz: float
    horizontal_sigma_m: float  # per axis, after removing the latency
    vertical_sigma_m: float
    vertical_bias_m: float = 0.0
    latency_s: float = 0.0
    correlation_s: float = 20.0


UBLOX = GnssModel(10.0, 0.54 / RAYLEIGH_MEAN, 0.5, vertical_bias_m=1.1, latency_s=0.1)
PHONE = GnssModel(0.5, 3.3 / RAYLEIGH_MEAN, 3.3)
RECEIVERS = {"ublox": UBLOX, "phone": PHONE}


@dataclass(frozen=True, slots=True)
class TimedPoses:
    """Poses (N, 4, 4) of base_link at increasing stamps (N,)."""

    stamps_ns: np.ndarray
    T_target_base: Matrix

    def at(self, stamps_ns: np.ndarray) -> Matrix:
        """Interpolate poses (M, 4, 4), linearly and by SLERP; constant beyond both ends."""
        if len(self.stamps_ns) == 1:
            return np.repeat(self.T_target_base, len(stamps_ns), axis=0)
        t = np.clip(stamps_ns - self.stamps_ns[0], 0, self.stamps_ns[-1] - self.stamps_ns[0]) / 1e9
        knots = (self.stamps_ns - self.stamps_ns[0]) / 1e9
        out = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        rotations = Rotation.from_matrix(self.T_target_base[:, :3, :3])
        out[:, :3, :3] = Slerp(knots, rotations)(t).as_matrix()
        for axis in range(3):
            out[:, axis, 3] = np.interp(t, knots, self.T_target_base[:, axis, 3])
        return out

    def ticks(self, rate_hz: float) -> np.ndarray:
        """Return stamps at a fixed rate from the first pose to at least the last one."""
        step_ns = round(1e9 / rate_hz)
        count = -(-int(self.stamps_ns[-1] - self.stamps_ns[0]) // step_ns)
        return self.stamps_ns[0] + step_ns * np.arange(count + 1, dtype=np.int64)


def simulate_odometry(
    path: TimedPoses, model: OdometryModel, rng: np.random.Generator
) -> TimedPoses:
    """Return drifting poses T_odom_base along a true path, starting with the identity."""
    stamps_ns = path.ticks(model.rate_hz)
    T_map_base = path.at(stamps_ns)
    steps = se3.inverse(T_map_base[:-1]) @ T_map_base[1:]
    steps = _disturbed(steps, 1.0 / model.rate_hz, model, rng)
    T_odom_base = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
    for i, step in enumerate(steps):
        T_odom_base[i + 1] = T_odom_base[i] @ step
    return TimedPoses(stamps_ns, T_odom_base)


def _disturbed(
    steps: Matrix, dt_s: float, model: OdometryModel, rng: np.random.Generator
) -> Matrix:
    white = np.sqrt(model.averaging_s / dt_s)  # the noise density stays the same at any rate
    length_m = np.linalg.norm(steps[:, :3, 3], axis=1)
    noise_m = rng.normal(0.0, model.speed_sigma_mps * white * dt_s, len(steps))
    # Wheels at rest report no motion at all.
    factor = 1.0 + model.speed_bias_share + noise_m / np.where(length_m > 1e-6, length_m, np.inf)
    heading_rad = rng.normal(
        0.0, np.deg2rad(model.heading_rate_sigma_deg_per_s) * white * dt_s, len(steps)
    )
    out = steps.copy()
    out[:, :3, 3] *= factor[:, None]
    out[:, :3, :3] = steps[:, :3, :3] @ Rotation.from_euler("z", heading_rad[:, None]).as_matrix()
    return out


def simulate_gnss(
    path: TimedPoses, model: GnssModel, rng: np.random.Generator
) -> tuple[np.ndarray, Matrix]:
    """Return stamps (N,) and measured positions (N, 3) in map axes, delayed by the latency."""
    stamps_ns = path.ticks(model.rate_hz)
    positions = path.at(stamps_ns - round(model.latency_s * 1e9))[:, :3, 3]
    sigma = [model.horizontal_sigma_m, model.horizontal_sigma_m, model.vertical_sigma_m]
    errors = _gauss_markov(len(stamps_ns), 1.0 / model.rate_hz, model.correlation_s, rng) * sigma
    return stamps_ns, positions + errors + [0.0, 0.0, model.vertical_bias_m]


def _gauss_markov(
    count: int, dt_s: float, correlation_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Sample a first-order process of unit variance (count, 3)."""
    keep = np.exp(-dt_s / correlation_s)
    out = rng.normal(size=(count, 3))
    out[1:] *= np.sqrt(1.0 - keep**2)
    for i in range(1, count):
        out[i] += keep * out[i - 1]
    return out
