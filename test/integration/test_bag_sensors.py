"""Odometry and GNSS as bags simulate them."""

import numpy as np
import pytest

from helpers.drives import START_NS
from pixloc_ros.replay import simulated_sensors


def straight_drive(seconds: float, speed_mps: float) -> simulated_sensors.TimedPoses:
    count = round(10 * seconds) + 1
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3] = np.arange(count) * speed_mps / 10
    return simulated_sensors.TimedPoses(START_NS + np.arange(count) * 100_000_000, T)


@pytest.mark.parametrize("rate_hz", [10.0, 100.0])
def test_odometry_drifts_as_measured_at_any_rate(rate_hz):
    path, rng = straight_drive(60, 16.0), np.random.default_rng(0)
    model = simulated_sensors.OdometryModel(rate_hz=rate_hz)
    ends = []
    for _ in range(40):
        drift = simulated_sensors.simulate_odometry(path, model, rng)
        assert np.array_equal(drift.T_target_base[0], np.eye(4))
        ends.append(drift.T_target_base[-1])
    lengths = np.array([end[0, 3] for end in ends])
    headings_deg = np.rad2deg([np.arctan2(end[1, 0], end[0, 0]) for end in ends])
    assert lengths.mean() / 960.0 - 1 == pytest.approx(-0.009, abs=0.0005)
    # 600 averages over 0.1 s with 0.06 m/s: 0.006 m * sqrt(600) = 0.147 m.
    assert lengths.std() == pytest.approx(0.147, rel=0.35)
    assert headings_deg.std() == pytest.approx(0.01 * np.sqrt(600), rel=0.35)


def test_wheels_at_rest_report_no_motion():
    drift = simulated_sensors.simulate_odometry(
        straight_drive(10, 0.0), simulated_sensors.OdometryModel(), np.random.default_rng(0)
    )
    assert np.abs(drift.T_target_base[:, :3, 3]).max() < 1e-12


def test_gnss_errs_as_measured():
    path, rng = straight_drive(120, 13.5), np.random.default_rng(0)
    as_stamped, without_latency, up = [], [], []
    for _ in range(30):
        stamps_ns, positions = simulated_sensors.simulate_gnss(path, simulated_sensors.UBLOX, rng)
        stamps_ns, positions = stamps_ns[2:], positions[2:]
        for out, latency_ns in ((as_stamped, 0), (without_latency, 100_000_000)):
            error = positions - path.at(stamps_ns - latency_ns)[:, :3, 3]
            out.append(np.linalg.norm(error[:, :2], axis=1).mean())
        up.append(error[:, 2].mean())
    assert np.mean(without_latency) == pytest.approx(0.54, abs=0.06)
    assert np.mean(as_stamped) == pytest.approx(1.45, abs=0.15)
    assert np.mean(up) == pytest.approx(1.1, abs=0.2)


def test_the_error_of_gnss_wanders_slowly():
    path = straight_drive(120, 0.0)
    _, positions = simulated_sensors.simulate_gnss(
        path, simulated_sensors.UBLOX, np.random.default_rng(1)
    )
    steps = np.linalg.norm(np.diff(positions[:, :2], axis=0), axis=1)
    assert steps.mean() < 0.1
