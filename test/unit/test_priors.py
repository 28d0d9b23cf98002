"""From odometry, GNSS and stated poses to the prior of a frame."""

from __future__ import annotations

import numpy as np
import pymap3d
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.priors import (
    CONFIG,
    DATUM,
    accepted,
    at_s,
    drive,
    fix_at,
    holder,
    pose,
    tracker,
)
from pixloc_ros.geometry import se3
from pixloc_ros.maps.datum import GridDatum
from pixloc_ros.priors import motion
from pixloc_ros.priors.gnss import GnssGate, ReceivedFix
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.types import Estimate, Reason, Status


def test_odometry_is_interpolated_at_the_stamp_of_the_image() -> None:
    buffer = OdometryBuffer(holder())
    buffer.add(at_s(0.0), pose(0.0, yaw_deg=0.0))
    buffer.add(at_s(0.1), pose(2.0, yaw_deg=10.0))
    reading = buffer.at(at_s(0.025))
    assert reading is not None
    np.testing.assert_allclose(reading.T_odom_base, pose(0.5, yaw_deg=2.5), atol=1e-12)
    assert reading.driven_m == pytest.approx(0.5)


def test_the_twist_is_that_of_the_newest_readings() -> None:
    buffer = OdometryBuffer(holder())
    buffer.add(at_s(0.0), pose(0.0))
    assert buffer.twist() is None
    drive(buffer, until_s=1.0)
    twist = buffer.twist()
    np.testing.assert_allclose(twist.velocity, [10.0, 0, 0, 0, 0, 0], atol=1e-9)
    assert twist.sigma[0] == pytest.approx(CONFIG.odometry_min_sigma_m / 0.2)


def test_the_motion_between_two_stamps_is_known_within_the_history_only() -> None:
    buffer = OdometryBuffer(holder())
    drive(buffer, until_s=1.0)
    np.testing.assert_allclose(buffer.motion(at_s(0.2), at_s(0.7)), pose(5.0), atol=1e-9)
    assert buffer.motion(at_s(-1.0), at_s(0.5)) is None
    assert buffer.motion(at_s(0.5), at_s(3.0)) is None


def test_odometry_is_extrapolated_a_little_and_not_more() -> None:
    buffer = OdometryBuffer(holder())
    drive(buffer, until_s=1.0)
    reading = buffer.at(at_s(1.1))
    assert reading is not None
    assert reading.T_odom_base[0, 3] == pytest.approx(11.0)
    assert buffer.at(at_s(1.3)) is None
    assert buffer.at(at_s(-0.1)) is None


def test_odometry_that_comes_late_makes_the_prior_vague_and_then_corrects_it() -> None:
    track = tracker()
    drive(track, until_s=1.0)
    assert track.update(accepted(at_s(1.1), pose(11.3))).ok, "the vehicle sped up"
    prior = track.prior(at_s(1.1))
    assert np.sqrt(prior.covariance[0, 0]) == pytest.approx(0.65, abs=0.02), "3 m/s, twice"
    track.add_odometry(at_s(1.1), pose(11.3))
    prior = track.prior(at_s(1.1))
    np.testing.assert_allclose(prior.T_map_base, pose(11.3), atol=1e-9)
    np.testing.assert_allclose(track.T_map_odom, np.eye(4), atol=1e-9)
    assert np.sqrt(prior.covariance[0, 0]) < 0.06


def test_one_odometry_outlier_is_refused_and_a_restart_begins_anew() -> None:
    buffer = OdometryBuffer(holder())
    drive(buffer, until_s=1.0)
    buffer.add(at_s(1.02), pose(500.0))
    buffer.add(at_s(1.04), pose(10.4))
    assert buffer.rejected == {"odometry_jump": 1}
    assert buffer.at(at_s(1.03)).T_odom_base[0, 3] == pytest.approx(10.3)
    for tick in range(3):
        buffer.add(at_s(1.06 + tick / 50), pose(0.2 * tick - 900.0))
    assert buffer.rejected["odometry_restarted"] == 1
    assert buffer.at(at_s(1.0)) is None
    assert buffer.at(buffer.stamp_ns).T_odom_base[0, 3] == pytest.approx(-899.6)


def test_odometry_refuses_nan_and_late_messages_and_breaks_at_gaps() -> None:
    buffer = OdometryBuffer(holder())
    drive(buffer, until_s=1.0)
    epoch = buffer.epoch
    buffer.add(at_s(1.02), pose(float("nan")))
    buffer.add(at_s(0.5), pose(5.0))
    buffer.add(at_s(1.0), pose(10.0))
    assert buffer.rejected == {"odometry_not_finite": 1, "odometry_out_of_order": 2}
    buffer.add(at_s(3.0), pose(30.0))
    assert buffer.epoch != epoch
    assert buffer.at(at_s(2.0)) is None


def test_odometry_history_is_bounded() -> None:
    buffer = OdometryBuffer(holder())
    drive(buffer, until_s=100.0)
    assert len(buffer) < 50 * 10


@given(st.floats(-180, 180), st.floats(1.0, 200.0))
def test_heading_error_swings_the_carried_position(yaw_deg: float, driven_m: float) -> None:
    covariance = np.diag([0.0, 0.0, 0.0, 0.0, 0.0, np.deg2rad(1.0) ** 2])
    step = motion.Step(pose(driven_m), 0.0, 0.0)
    T_map_base, carried = motion.carry(pose(5.0, 7.0, yaw_deg), covariance, step)
    sideways = T_map_base[:3, 1]
    assert sideways @ carried[:3, :3] @ sideways == pytest.approx(
        (np.deg2rad(1.0) * driven_m) ** 2, rel=1e-9
    )
    forward = T_map_base[:3, 0]
    assert forward @ carried[:3, :3] @ forward == pytest.approx(0.0, abs=1e-9)
    # The same by a sample: turn the pose about the map's z axis and drive.
    turned = se3.make(pose(0, yaw_deg=1.0)[:3, :3] @ pose(0, yaw_deg=yaw_deg)[:3, :3], [5, 7, 0])
    moved = np.linalg.norm((turned @ pose(driven_m) - T_map_base)[:3, 3])
    assert moved == pytest.approx(np.sqrt(np.trace(carried[:3, :3])), rel=1e-3)


def test_uncertainty_grows_with_the_distance_driven() -> None:
    track = tracker()
    drive(track, until_s=4.0)
    track.update(accepted(at_s(1.0), pose(110.0)))
    near, far = track.prior(at_s(1.1)), track.prior(at_s(4.0))
    assert near.source == far.source == "odometry"
    np.testing.assert_allclose(far.T_map_base, pose(140.0), atol=1e-9)
    sigmas = [float(np.sqrt(np.trace(p.covariance[:3, :3]))) for p in (near, far)]
    assert 0.05 < sigmas[0] < 0.15
    assert 0.6 < sigmas[1] < 3.0


def test_map_odom_joins_the_odometry_to_the_accepted_pose() -> None:
    track = tracker()
    assert track.T_map_odom is None
    drive(track, until_s=2.0)
    T_map_base = pose(50.0, 4.0, 90.0)
    track.update(accepted(at_s(1.01), T_map_base))
    np.testing.assert_allclose(track.T_map_odom @ pose(10.1), T_map_base, atol=1e-9)
    rejected = Estimate(Status.REJECTED, Reason.HIGH_COST, "", at_s(1.5))
    track.update(rejected)
    np.testing.assert_allclose(track.T_map_odom @ pose(10.1), T_map_base, atol=1e-9)


def test_an_estimate_ahead_of_its_odometry_is_joined_when_it_arrives() -> None:
    track = tracker()
    track.add_odometry(at_s(0.0), pose(0.0))
    track.update(accepted(at_s(0.5), pose(55.0)))
    assert track.T_map_odom is None
    track.add_odometry(at_s(1.0), pose(10.0))
    np.testing.assert_allclose(track.T_map_odom, pose(50.0), atol=1e-9)


def test_prediction_ends_after_the_coasting_time() -> None:
    track = tracker()
    drive(track, until_s=9.0)
    track.update(accepted(at_s(1.0), pose(10.0)))
    assert track.predict(at_s(5.9)) is not None
    assert track.predict(at_s(6.1)) is None
    assert track.prior(at_s(6.1)) is None


def test_without_odometry_the_last_motion_goes_on_with_growing_doubt() -> None:
    track = tracker()
    track.update(accepted(at_s(1.0), pose(10.0)))
    track.update(accepted(at_s(1.1), pose(11.0, yaw_deg=1.0)))
    prior = track.prior(at_s(1.2))
    assert prior.source == "motion"
    assert prior.T_map_base[0, 3] == pytest.approx(12.0, abs=0.02)
    assert se3.angle_deg(prior.T_map_base, pose(0, yaw_deg=2.0)) < 1e-6
    assert np.trace(track.prior(at_s(1.5)).covariance) > 4 * np.trace(prior.covariance)


def test_a_break_of_the_odometry_voids_map_odom_but_not_the_pose() -> None:
    track = tracker()
    drive(track, until_s=1.0)
    track.update(accepted(at_s(1.0), pose(10.0)))
    track.add_odometry(at_s(2.5), pose(0.0))
    assert track.T_map_odom is None
    assert track.prior(at_s(2.5)).source == "motion"


def test_a_fix_takes_height_and_attitude_of_the_nearest_keyframe() -> None:
    track = tracker()
    fix_at(track, 1.0, (42.2, 1.5), altitude_m=float("nan"))
    prior = track.prior(at_s(1.0))
    assert prior.source == "gnss"
    np.testing.assert_allclose(prior.T_map_base[:3, 3], [42.2, 1.5, 3.0], atol=1e-5)
    keyframe = se3.make(Rotation.from_euler("y", 4, degrees=True).as_matrix(), np.zeros(3))
    assert se3.angle_deg(prior.T_map_base, keyframe) < 1e-6
    assert np.rad2deg(np.sqrt(prior.covariance[5, 5])) >= CONFIG.gnss_heading_sigma_deg


def test_a_fix_is_carried_on_by_odometry() -> None:
    track = tracker()
    drive(track, until_s=1.5)
    fix_at(track, 1.0, (40.0, 0.0))
    prior = track.prior(at_s(1.5))
    assert prior.source == "gnss"
    expected = 40.0 + 5.0 * np.cos(np.deg2rad(4.0))
    assert prior.T_map_base[0, 3] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": -1}, "gnss_no_fix"),
        ({"latitude_deg": float("nan")}, "gnss_not_a_position"),
        ({"latitude_deg": 0.0, "longitude_deg": 0.0}, "gnss_not_a_position"),
        ({"latitude_deg": 91.0}, "gnss_not_a_position"),
        ({"covariance_enu": np.eye(3) * 1e4}, "gnss_too_vague"),
        ({"latitude_deg": 49.1}, "gnss_jump"),
    ],
)
def test_useless_fixes_are_refused_and_counted(changes: dict[str, object], reason: str) -> None:
    track = tracker()
    fix_at(track, 0.0, (10.0, 0.0))
    fix_at(track, 1.0, (10.0, 0.0), **changes)
    assert track.rejected == {reason: 1}
    assert track.prior(at_s(0.0)).T_map_base[0, 3] == pytest.approx(10.0, abs=1e-4)


def test_old_fixes_give_no_prior() -> None:
    track = tracker()
    fix_at(track, 0.0, (10.0, 0.0))
    assert track.prior(at_s(1.2)) is None
    assert track.rejected == {"gnss_stale": 1}


def test_a_map_without_datum_says_so() -> None:
    track = tracker(datum=None)
    fix_at(track, 0.0, (10.0, 0.0))
    assert track.prior(at_s(0.0)) is None
    assert track.rejected == {"gnss_without_datum": 1}


def test_covariance_of_a_fix_is_floored_or_assumed_and_turned_into_the_map() -> None:
    track = tracker()
    fix_at(track, 0.0, (10.0, 0.0), covariance_enu=np.diag([25.0, 0.01, 1.0]))
    plane = track.prior(at_s(0.0)).covariance[:2, :2]
    east_in_map = Rotation.from_euler("z", -DATUM.yaw_deg, degrees=True).apply([1, 0, 0])[:2]
    assert east_in_map @ plane @ east_in_map == pytest.approx(25.0, rel=0.05)
    assert np.linalg.eigvalsh(plane)[0] >= CONFIG.gnss_min_sigma_m**2
    fix_at(track, 0.1, (10.0, 0.0), covariance_enu=None)
    sigma_m = np.sqrt(track.prior(at_s(0.1)).covariance[0, 0])
    assert sigma_m == pytest.approx(CONFIG.gnss_default_sigma_m, rel=0.05)


def test_the_x_axis_of_the_map_points_where_the_datum_says() -> None:
    latitude, longitude, _ = pymap3d.enu2geodetic(
        100 * np.cos(np.deg2rad(30)), 100 * np.sin(np.deg2rad(30)), 0.0, 49.0, 8.4, 110.0
    )
    position = DATUM.position_map(latitude, longitude, 110.0)
    np.testing.assert_allclose(position[:2], [100.0, 0.0], atol=1e-3)


def test_a_fix_that_the_projection_does_not_reach_is_refused() -> None:
    pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    gate = GnssGate(holder(), GridDatum(crs="EPSG:25832"))
    assert gate.accept(ReceivedFix(0, 0.0, 99.0, 100.0, np.eye(3), 0)) is None
    assert gate.rejected == {"gnss_beyond_the_crs": 1}
    assert gate.accept(ReceivedFix(0, 49.0, 9.0, 100.0, np.eye(3), 0)) is not None


def test_a_click_in_rviz_gets_the_height_of_the_map_and_keeps_its_heading() -> None:
    track = tracker()
    covariance = np.zeros((6, 6))
    covariance[0, 0] = covariance[1, 1] = 0.25
    covariance[0, 1] = covariance[1, 0] = -0.1
    covariance[5, 5] = 0.07
    track.add_pose(at_s(0.0), pose(20.0, 1.0, 90.0), covariance, "initialpose")
    prior = track.prior(at_s(0.0))
    assert prior.source == "initialpose"
    np.testing.assert_allclose(prior.T_map_base[:3, 3], [20.0, 1.0, 3.0], atol=1e-9)
    assert np.rad2deg(np.arctan2(*prior.T_map_base[[1, 0], 0])) == pytest.approx(90.0, abs=0.5)
    assert np.linalg.eigvalsh(prior.covariance)[0] > 0
    assert prior.covariance[0, 1] < 0


def test_a_click_overrules_what_is_tracked_and_a_gnss_pose_does_not() -> None:
    track = tracker()
    drive(track, until_s=1.0)
    track.update(accepted(at_s(1.0), pose(10.0)))
    track.add_pose(at_s(1.0), pose(70.0), np.eye(6) * 0.1, "gnss")
    assert track.prior(at_s(1.0)).T_map_base[0, 3] == pytest.approx(10.0)
    track.add_pose(at_s(1.0), pose(70.0), np.eye(6) * 0.1, "initialpose")
    assert track.prior(at_s(1.0)).T_map_base[0, 3] == pytest.approx(70.0)


def test_an_old_click_is_carried_by_odometry_for_as_long_as_it_takes() -> None:
    track = tracker()
    drive(track, until_s=1.0, speed_mps=0.0)
    track.add_pose(at_s(1.0), pose(20.0), np.eye(6) * 0.1, "initialpose")
    drive(track, until_s=30.0, speed_mps=0.0)
    assert track.prior(at_s(30.0)).T_map_base[0, 3] == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("T_map_base", "covariance", "reason"),
    [
        (pose(float("nan")), np.eye(6), "initialpose_not_finite"),
        (pose(0.0), np.full((6, 6), np.nan), "initialpose_not_finite"),
        (pose(0.0), -np.eye(6), "initialpose_not_finite"),
        (pose(0.0), np.eye(6) * 1e6, "initialpose_too_vague"),
    ],
)
def test_useless_poses_are_refused(
    T_map_base: np.ndarray, covariance: np.ndarray, reason: str
) -> None:
    track = tracker()
    track.add_pose(0, T_map_base, covariance, "initialpose")
    assert track.rejected == {reason: 1}
    assert track.prior(0) is None


def test_where_time_went_back_what_is_later_is_forgotten() -> None:
    track = tracker()
    drive(track, until_s=10.0)
    track.update(accepted(at_s(10.0), pose(90.0)))
    generation = track.generation
    track.begin_again(at_s(0.0))
    assert track.generation != generation
    drive(track, until_s=0.5)
    fix_at(track, 0.5, (15.0, 0.0))
    assert track.T_map_odom is None
    assert track.prior(at_s(0.5)).source == "gnss"


def test_a_sensor_that_is_first_in_the_new_loop_is_not_forgotten() -> None:
    track = tracker()
    drive(track, until_s=10.0)
    fix_at(track, 10.0, (90.0, 0.0))
    fix_at(track, 0.0, (10.0, 0.0))
    track.begin_again(at_s(0.0))
    assert track.prior(at_s(0.0)).T_map_base[0, 3] == pytest.approx(10.0, abs=1e-4)


def test_odometry_carries_an_accepted_pose_until_it_tells_the_place_no_more() -> None:
    track = tracker()
    drive(track, until_s=1.0)
    track.update(accepted(at_s(1.0), pose(10.0)))
    for tick in range(50, 100 * 50):
        track.add_odometry(at_s(tick / 50), pose(10.0 * tick / 50))
        if tick == 8 * 50:
            assert track.predict(at_s(8)) is None, "too old for the transform"
            prior = track.prior(at_s(8))
            np.testing.assert_allclose(prior.T_map_base, pose(80.0), atol=1e-9)
            assert np.sqrt(prior.covariance[0, 0]) == pytest.approx(2.84, rel=0.01)
    assert track.prior(at_s(99.9)) is None, "a kilometre later"
