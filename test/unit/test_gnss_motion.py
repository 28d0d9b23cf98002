"""What fixes tell beyond a position: the heading of a vehicle that moves, and of its antenna."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.priors import (
    CONFIG,
    DATUM,
    at_s,
    drive,
    fix_at,
    holder,
    pose,
    street_map,
    tracker,
)
from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.static_transforms import StaticTransforms

BORROWED_RAD = np.deg2rad(CONFIG.gnss_heading_sigma_deg)


def heading_deg(T_map_base: np.ndarray) -> float:
    return float(np.rad2deg(np.arctan2(T_map_base[1, 0], T_map_base[0, 0])))


def heading_error_rad(T_map_base: np.ndarray, true_deg: float) -> float:
    return float(np.deg2rad((heading_deg(T_map_base) - true_deg + 180) % 360 - 180))


def drive_with_fixes(
    track: PoseTracker,
    T_map_start: np.ndarray,
    seconds: float,
    speed_mps: float = 10.0,
    turn_degps: float = 0.0,
    odometry: bool = True,
    noise: np.random.Generator | None = None,
    lever: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """Odometry at 50 Hz (x forward from its start) and fixes at 2 Hz; the last T_map_base."""
    T_map_base = T_map_start
    for tick in range(round(seconds * 50) + 1):
        yaw = np.deg2rad(turn_degps) * tick / 50
        if abs(yaw) > 1e-12:
            radius = speed_mps / np.deg2rad(turn_degps)
            xy = radius * np.sin(yaw), radius * (1 - np.cos(yaw))
        else:
            xy = speed_mps * tick / 50, 0.0
        T_odom_base = pose(*xy, yaw_deg=np.rad2deg(yaw))
        T_map_base = T_map_start @ T_odom_base
        if odometry:
            track.add_odometry(at_s(tick / 50), T_odom_base)
        if tick % 25 == 0:
            antenna = se3.transform(T_map_base, np.array([lever or (0.0, 0.0, 0.0)]))[0, :2]
            antenna = antenna + (noise.normal(0, 1, 2) if noise else 0)
            fix_at(track, tick / 50, tuple(antenna), None if lever is None else np.array(lever))
    return T_map_base


def test_a_vehicle_that_stands_borrows_its_heading_from_the_map() -> None:
    track = tracker()
    drive_with_fixes(track, pose(20.0, 0.0, 140.0), seconds=3.0, speed_mps=0.0)
    prior = track.prior(at_s(3.0))
    assert abs(heading_deg(prior.T_map_base)) < 1e-6
    assert np.sqrt(prior.covariance[5, 5]) == pytest.approx(BORROWED_RAD, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.floats(-180, 180), st.sampled_from([-8.0, 8.0]), st.floats(-15, 15))
def test_odometry_and_fixes_tell_the_heading_either_way_it_drives(
    start_deg: float, speed_mps: float, turn_degps: float
) -> None:
    track = tracker()
    start = pose(50.0, 0.0, start_deg)
    T_map_base = drive_with_fixes(track, start, 6.0, speed_mps, turn_degps)
    prior = track.prior(at_s(6.0))
    assert heading_error_rad(prior.T_map_base, heading_deg(T_map_base)) == pytest.approx(
        0, abs=1e-3
    )
    assert np.sqrt(prior.covariance[5, 5]) < 0.75 * BORROWED_RAD


def test_the_heading_gets_surer_with_the_way_driven() -> None:
    sigmas = []
    for seconds in (1.0, 2.0, 4.0, 8.0):
        track = tracker()
        drive_with_fixes(track, pose(0.0), seconds)
        sigmas.append(np.sqrt(track.prior(at_s(seconds)).covariance[5, 5]))
    assert sigmas[0] == pytest.approx(BORROWED_RAD, rel=0.01)
    assert sigmas[0] > sigmas[1] > sigmas[2] == pytest.approx(sigmas[3], rel=0.1)
    assert sigmas[3] > np.deg2rad(1.0)


@pytest.mark.parametrize("odometry", [True, False])
def test_the_sigma_of_the_heading_is_honest(odometry: bool) -> None:
    rng = np.random.default_rng(7)
    ratios = []
    for _ in range(60):
        track, start_deg = tracker(), rng.uniform(-180, 180)
        start = pose(50.0, 0.0, start_deg)
        T_map_base = drive_with_fixes(track, start, 3.0, odometry=odometry, noise=rng)
        prior = track.prior(at_s(3.0))
        sigma_rad = np.sqrt(prior.covariance[5, 5])
        ratios.append(heading_error_rad(prior.T_map_base, heading_deg(T_map_base)) / sigma_rad)
    assert np.mean(np.abs(ratios) < 1) > 0.6
    assert np.mean(np.abs(ratios) < 2) > 0.9
    assert np.max(np.abs(ratios)) < 4


def test_without_odometry_the_course_over_ground_is_the_heading() -> None:
    track = tracker()
    drive_with_fixes(track, pose(80.0, 0.0, 170.0), 3.0, odometry=False)
    prior = track.prior(at_s(3.0))
    assert heading_deg(prior.T_map_base) == pytest.approx(170.0, abs=0.1)
    assert np.sqrt(prior.covariance[5, 5]) < BORROWED_RAD


def test_a_heading_from_before_the_odometry_broke_is_forgotten() -> None:
    track = tracker()
    drive_with_fixes(track, pose(0.0, 0.0, 60.0), 4.0)
    assert heading_deg(track.prior(at_s(4.0)).T_map_base) == pytest.approx(60.0, abs=0.1)
    for stamp_s in (6.0, 6.02):
        track.add_odometry(at_s(stamp_s), pose(0.0))
    fix_at(track, 6.0, (60.0, 0.0))
    prior = track.prior(at_s(6.0))
    assert heading_deg(prior.T_map_base) == pytest.approx(0.0, abs=0.1)


def test_wheels_that_slip_tell_no_heading() -> None:
    track = tracker()
    for tick in range(101):
        track.add_odometry(at_s(tick / 50), pose(0.0, 0.3 * tick))
        if tick % 25 == 0:
            fix_at(track, tick / 50, (20.0 + 0.003 * tick, 0.0))
    prior = track.prior(at_s(2.0))
    assert heading_deg(prior.T_map_base) == pytest.approx(0.0, abs=1e-6)
    assert np.sqrt(prior.covariance[5, 5]) == pytest.approx(BORROWED_RAD, rel=0.01)


def test_the_vehicle_stands_beside_its_antenna() -> None:
    lever = (1.5, -0.4, 1.2)
    track, plain = tracker(), tracker()
    start = pose(10.0, 2.0, 90.0)
    T_map_base = drive_with_fixes(track, start, 6.0, lever=lever)
    drive_with_fixes(plain, start, 6.0)
    prior = track.prior(at_s(6.0))
    # The map tilts by 4 degrees, which moves an antenna 1.2 m above the axle by 0.08 m.
    np.testing.assert_allclose(prior.T_map_base[:2, 3], T_map_base[:2, 3], atol=0.1)
    assert prior.T_map_base[2, 3] == pytest.approx(3.0, abs=1e-6)
    sideways = T_map_base[:2, 1]
    grown, before = (
        sideways @ p.covariance[:2, :2] @ sideways for p in (prior, plain.prior(at_s(6.0)))
    )
    swing_m2 = prior.covariance[5, 5] * 1.5**2
    assert grown - before == pytest.approx(swing_m2, rel=0.5)
    assert abs(prior.covariance[0, 5]) > 0, "the error of the heading moves the vehicle"


def test_where_the_antenna_is_comes_from_the_parameter_then_from_tf_then_from_nowhere() -> None:
    transforms = StaticTransforms()
    transforms.add("base_link", "roof", pose(0.0))
    transforms.add("roof", "gps", se3.make(np.eye(3), [0.2, 0.0, 1.6]))
    given_m = CONFIG.model_copy(update={"gnss_antenna_m": (1.0, 0.0, 2.0)})
    find = transforms.lookup
    np.testing.assert_allclose(antenna_base(given_m, find, "base_link", "gps"), [1.0, 0.0, 2.0])
    np.testing.assert_allclose(antenna_base(CONFIG, find, "base_link", "gps"), [0.2, 0.0, 1.6])
    assert antenna_base(CONFIG, find, "base_link", "elsewhere") is None
    assert antenna_base(CONFIG, find, "base_link", "") is None


def test_limits_can_be_changed_while_driving() -> None:
    config = holder()
    track = PoseTracker(config, street_map())
    drive(track, until_s=1.0)
    fix_at(track, 1.0, (10.0, 0.0), covariance_enu=np.eye(3) * 25.0)
    tight = CONFIG.model_copy(update={"gnss_max_sigma_m": 2.0, "odometry_max_speed_mps": 5.0})
    config.replace(Config(priors=tight))
    fix_at(track, 1.1, (11.0, 0.0), covariance_enu=np.eye(3) * 25.0)
    track.add_odometry(at_s(1.02), pose(10.2))
    assert track.rejected == {"gnss_too_vague": 1, "odometry_jump": 1}
    assert track.prior(at_s(1.0)).T_map_base[0, 3] == pytest.approx(10.0, abs=0.1)


def test_a_map_seen_from_another_datum_axis_has_its_own_headings() -> None:
    assert DATUM.yaw_deg == 30.0
    track = tracker(DATUM.model_copy(update={"yaw_deg": 0.0}))
    drive_with_fixes(track, pose(20.0, 0.0, 0.0), 4.0)
    # fix_at places fixes for a map turned by 30 degrees: in this one the path leads that way.
    assert heading_deg(track.prior(at_s(4.0)).T_map_base) == pytest.approx(30.0, abs=0.1)
