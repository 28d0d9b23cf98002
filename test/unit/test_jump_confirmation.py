"""A pose that nobody expected moves nothing until other frames agree."""

from __future__ import annotations

import numpy as np

from helpers.priors import CONFIG, accepted, at_s, holder, pose, street_map
from pixloc_ros.config import PriorsConfig
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.types import Estimate, Reason, Status


def driving(config: PriorsConfig = CONFIG, until_s: float = 9.0) -> PoseTracker:
    """At 10 m/s along x, and localized at second 1."""
    tracker = PoseTracker(holder(config), street_map())
    for tick in range(round(until_s * 50) + 1):
        tracker.add_odometry(at_s(tick / 50), pose(10.0 * tick / 50))
        if tick == 50:
            assert tracker.update(accepted(at_s(1), pose(10.0))).ok
    return tracker


def test_a_jump_is_believed_when_a_second_frame_agrees() -> None:
    tracker = driving()
    T_map_odom = tracker.T_map_odom
    first = tracker.update(accepted(at_s(8), pose(80.0, 20.0)))
    assert (first.status, first.reason) == (Status.REJECTED, Reason.UNCONFIRMED)
    assert first.T_map_base is None
    assert first.covariance is None
    assert first.candidate_T_map_base is None, "the localizer sets the candidate, not the tracker"
    assert "20.0 m" in first.message
    assert "1 of 2" in first.message
    np.testing.assert_allclose(tracker.T_map_odom, T_map_odom)
    assert tracker.update(accepted(at_s(8.1), pose(81.0, 20.0))).ok
    np.testing.assert_allclose(tracker.T_map_odom[:3, 3], [0.0, 20.0, 0.0], atol=1e-9)


def test_jumps_to_different_places_confirm_nothing() -> None:
    tracker = driving()
    for tick, y in enumerate((20.0, -20.0, 35.0, 50.0)):
        verdict = tracker.update(accepted(at_s(8 + tick / 10), pose(80.0 + tick, y)))
        assert verdict.reason is Reason.UNCONFIRMED
    assert tracker.update(accepted(at_s(8.5), pose(85.0))).ok, "where it was expected"


def test_agreement_is_asked_of_the_last_frames_only() -> None:
    tracker = driving()
    nothing = Estimate(Status.FAILED, Reason.BAD_IMAGE, "", at_s(8))
    assert not tracker.update(accepted(at_s(8), pose(80.0, 20.0))).ok
    for _ in range(CONFIG.jump_window):
        assert tracker.update(nothing) is nothing
    assert not tracker.update(accepted(at_s(8.5), pose(85.0, 20.0))).ok
    assert tracker.update(nothing) is nothing
    assert tracker.update(accepted(at_s(8.6), pose(86.0, 20.0))).ok


def test_what_the_covariance_allows_is_no_jump() -> None:
    tracker = driving()
    assert tracker.update(accepted(at_s(8), pose(81.0, 1.0))).ok, "70 m by odometry are vague"
    assert not tracker.update(accepted(at_s(8.1), pose(82.0, 2.0))).ok, "1 m is not"


def test_there_is_nothing_to_jump_from_after_a_statement_a_reset_or_a_break() -> None:
    tracker = driving()
    tracker.add_pose(at_s(8), pose(80.0, 20.0), np.eye(6) * 0.01, "initialpose")
    assert tracker.update(accepted(at_s(8), pose(80.0, 20.0))).ok
    tracker = driving()
    tracker.reset()
    assert tracker.update(accepted(at_s(8), pose(80.0, 20.0))).ok
    tracker = driving()
    for tick in range(3):
        tracker.add_odometry(at_s(20 + tick / 50), pose(0.0))
    assert tracker.update(accepted(at_s(20), pose(50.0, 20.0))).ok


def test_without_odometry_frames_agree_by_standing_nearby() -> None:
    tracker = PoseTracker(holder(), street_map())
    assert tracker.update(accepted(at_s(1), pose(10.0))).ok
    assert tracker.update(accepted(at_s(1.1), pose(60.0))).reason is Reason.UNCONFIRMED
    assert tracker.update(accepted(at_s(1.2), pose(60.5))).ok


def test_one_frame_is_enough_where_that_is_configured() -> None:
    tracker = driving(PriorsConfig(jump_frames=1))
    assert tracker.update(accepted(at_s(8), pose(80.0, 20.0))).ok
