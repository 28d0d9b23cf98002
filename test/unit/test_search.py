"""Where a search begins when nothing measured the place: on the whole map, or at the last pose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.invented import alignment
from helpers.priors import CONFIG, accepted, at_s, fix_at, holder, pose, street_map
from pixloc_ros.priors.last_pose import LastPoseFile
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.types import Estimate, PosePrior, Reason, Status

MISSES = CONFIG.fallback_after_misses


def driven(until_s: float = 6.5, can_search: bool = True) -> PoseTracker:
    """At 10 m/s along x by odometry; nothing says where on the map."""
    tracker = PoseTracker(holder(), street_map(), can_search)
    for tick in range(round(until_s * 50) + 1):
        tracker.add_odometry(at_s(tick / 50), pose(10.0 * tick / 50))
    return tracker


def found(
    stamp_s: float, T_map_base: np.ndarray, prior: PosePrior | None = None, source: str = ""
) -> Estimate:
    """What the localizer accepted, from this prior or from one of this source."""
    prior = prior or PosePrior(T_map_base, np.eye(6), source or "retrieval", at_s(stamp_s))
    return replace(accepted(at_s(stamp_s), T_map_base), prior=prior)


def missed(stamp_s: float) -> Estimate:
    """What the localizer says of a frame that it aligned and that did not fit."""
    aligned = alignment(pose(0.0), pose(0.0))
    return Estimate(Status.REJECTED, Reason.HIGH_COST, "", at_s(stamp_s), alignment=aligned)


def test_what_a_search_found_is_believed_when_the_next_frame_agrees() -> None:
    tracker = driven()
    assert tracker.prior(at_s(1)) is None
    first = tracker.update(found(1, pose(10.0, 5.0)))
    assert (first.status, first.reason) == (Status.REJECTED, Reason.UNCONFIRMED)
    assert "retrieval" in first.message
    assert "1 of 2" in first.message
    assert tracker.T_map_odom is None
    assert tracker.predict(at_s(1)) is None
    prior = tracker.prior(at_s(1.5))
    np.testing.assert_allclose(prior.T_map_base, pose(15.0, 5.0), atol=1e-9)
    assert tracker.update(found(1.5, pose(15.0, 5.0), prior)).ok
    np.testing.assert_allclose(tracker.T_map_odom, pose(0.0, 5.0), atol=1e-9)
    assert tracker.prior(at_s(2)).source == "odometry"


def test_what_a_search_found_is_dropped_when_the_next_frame_does_not_fit_there() -> None:
    tracker = driven()
    assert not tracker.update(found(1, pose(10.0, 5.0))).ok
    assert not tracker.update(missed(1.1)).ok
    assert tracker.prior(at_s(1.2)) is None, "the whole map is searched again"
    assert not tracker.update(found(1.2, pose(60.0, 5.0))).ok
    assert not tracker.update(found(1.3, pose(30.0, 5.0))).ok, "two places are no agreement"
    assert tracker.T_map_odom is None


def test_a_measured_start_needs_no_second_frame() -> None:
    tracker = driven()
    fix_at(tracker, 1.0, (10.0, 0.0))
    prior = tracker.prior(at_s(1))
    assert prior.source == "gnss"
    assert tracker.update(found(1, pose(10.0), prior)).ok


def test_carried_elsewhere_it_is_searched_for_after_a_few_misses() -> None:
    """At 10 m/s, localized once; then the camera shows another place."""
    tracker = driven()
    assert tracker.update(accepted(at_s(1), pose(10.0))).ok
    for tick in range(MISSES):
        assert tracker.prior(at_s(2 + tick / 10)).source == "odometry"
        assert not tracker.update(missed(2 + tick / 10)).ok
    assert tracker.prior(at_s(2.5)) is None
    first = tracker.update(found(2.5, pose(85.0)))
    assert first.reason is Reason.UNCONFIRMED
    prior = tracker.prior(at_s(2.6))
    np.testing.assert_allclose(prior.T_map_base, pose(86.0), atol=1e-9)
    assert tracker.update(found(2.6, pose(86.0), prior)).ok
    assert tracker.prior(at_s(2.7)).source == "odometry"


def test_searches_become_rarer_while_they_find_nothing() -> None:
    tracker = driven()
    tracker.update(accepted(at_s(1), pose(10.0)))
    searched = []
    for frame in range(13 * MISSES):
        stamp_s = 1.1 + frame / 20
        if tracker.prior(at_s(stamp_s)) is None:
            searched.append(frame)
        tracker.update(missed(stamp_s))
    assert searched == [MISSES, 2 * MISSES, 4 * MISSES, 8 * MISSES]


def test_a_frame_that_shows_nothing_is_no_reason_to_doubt() -> None:
    tracker = driven()
    tracker.update(accepted(at_s(1), pose(10.0)))
    for frame in range(MISSES):
        tracker.update(Estimate(Status.FAILED, Reason.BAD_IMAGE, "", at_s(1.1 + frame / 10)))
    assert tracker.prior(at_s(2)).source == "odometry"


def test_gnss_is_asked_before_the_map_is_searched() -> None:
    tracker = driven()
    tracker.update(accepted(at_s(1), pose(10.0)))
    for tick in range(MISSES):
        tracker.update(missed(2 + tick / 10))
    fix_at(tracker, 2.5, (60.0, 0.0))
    prior = tracker.prior(at_s(2.5))
    assert prior.source == "gnss"
    np.testing.assert_allclose(prior.T_map_base[:2, 3], [60.0, 0.0], atol=1e-6)


def test_a_fix_from_before_the_misses_does_not_take_the_turn_of_the_search() -> None:
    """Carried elsewhere where there is no GNSS: the last fix is still young, and wrong."""
    tracker = driven()
    tracker.update(accepted(at_s(1), pose(10.0)))
    fix_at(tracker, 1.95, (19.5, 0.0))
    for tick in range(MISSES):
        tracker.update(missed(2 + tick / 10))
    assert tracker.prior(at_s(2.5)) is None


def test_what_was_stated_before_the_doubt_is_doubted_too() -> None:
    tracker = driven()
    tracker.add_pose(at_s(1), pose(10.0), np.eye(6) * 0.01, "initialpose")
    tracker.update(accepted(at_s(1), pose(10.0)))
    for tick in range(MISSES):
        tracker.update(missed(2 + tick / 10))
    assert tracker.prior(at_s(2.5)) is None
    tracker.add_pose(at_s(2.4), pose(70.0), np.eye(6) * 0.01, "gnss_pose")
    assert tracker.prior(at_s(2.5)).source == "gnss_pose"


def test_without_a_search_what_is_believed_is_tried_on() -> None:
    tracker = driven(can_search=False)
    tracker.update(accepted(at_s(1), pose(10.0)))
    for tick in range(2 * MISSES):
        assert tracker.prior(at_s(1.1 + tick / 10)).source == "odometry"
        tracker.update(missed(1.1 + tick / 10))


def test_the_last_pose_is_a_start_until_something_better_or_three_misses() -> None:
    tracker = driven()
    tracker.remember(pose(42.0))
    prior = tracker.prior(at_s(1))
    assert prior.source == "last_pose"
    np.testing.assert_allclose(prior.T_map_base, pose(42.0))
    assert np.sqrt(prior.covariance[0, 0]) == pytest.approx(CONFIG.last_pose_sigma_m)
    assert tracker.update(found(1, pose(42.0), prior)).reason is Reason.UNCONFIRMED
    assert tracker.update(found(1.1, pose(43.0), tracker.prior(at_s(1.1)))).ok
    tracker = driven()
    tracker.remember(pose(42.0))
    fix_at(tracker, 1.0, (10.0, 0.0))
    assert tracker.prior(at_s(1)).source == "gnss"
    for tick in range(MISSES):
        assert tracker.prior(at_s(5 + tick / 10)).source == "last_pose"
        tracker.update(missed(5 + tick / 10))
    assert tracker.prior(at_s(6)) is None
    tracker.update(missed(6))
    assert tracker.prior(at_s(6.1)) is None, "it is given up for good"


def test_the_last_pose_is_forgotten_where_the_pose_is_asked_anew() -> None:
    tracker = driven()
    tracker.remember(pose(42.0))
    tracker.forget_pose()
    assert tracker.prior(at_s(1)) is None


@pytest.fixture
def kept(tmp_path: Path) -> tuple[LastPoseFile, list[str]]:
    warnings: list[str] = []
    return LastPoseFile(tmp_path / "robot" / "pose.json", "abc", warnings.append), warnings


def test_the_last_pose_comes_back_on_the_same_map_only(kept: Any, tmp_path: Path) -> None:
    file, warnings = kept
    assert file.recall() is None
    file.keep(accepted(at_s(1), pose(1.0)))
    np.testing.assert_allclose(file.recall(), pose(1.0))
    file.keep(accepted(at_s(2), pose(2.0, 3.0, 40.0)))
    np.testing.assert_allclose(file.recall(), pose(1.0), err_msg="not written at every frame")
    file.keep(missed(3))
    file.save()
    np.testing.assert_allclose(file.recall(), pose(2.0, 3.0, 40.0), atol=1e-12)
    assert not warnings
    other = LastPoseFile(tmp_path / "robot" / "pose.json", "def", warnings.append)
    assert other.recall() is None
    assert "another map" in warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"map_sha256": "abc"}',
        '{"map_sha256": "abc", "stamp_ns": 1, "T_map_base": [[1, 2], [3]]}',
        '{"map_sha256": "abc", "stamp_ns": 1, "T_map_base": [[0, 0, 0, 0]]}',
        "\0\1",
    ],
)
def test_a_damaged_file_is_a_warning(kept: Any, tmp_path: Path, text: str) -> None:
    file, warnings = kept
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "pose.json").write_text(text)
    assert file.recall() is None
    assert "cannot be used" in warnings[0]


def test_a_place_that_cannot_be_written_to_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "robot").write_text("a file where the folder would be")
    warnings: list[str] = []
    file = LastPoseFile(tmp_path / "robot" / "pose.json", "abc", warnings.append)
    file.keep(accepted(at_s(1), pose(1.0)))
    assert "not kept" in warnings[0]


def compared(stamp_s: float, ambiguity_m: float, prior: PosePrior | None = None) -> Estimate:
    """An accepted estimate whose place was compared with others, here or where its prior began."""
    T_map_base = pose(10.0 * stamp_s)
    return replace(found(stamp_s, T_map_base, prior, "gnss"), ambiguity_m=ambiguity_m)


@pytest.mark.parametrize(("ambiguity_m", "holds_m"), [(0.0, 50.0), (6.0, 3.0)])
def test_a_place_is_compared_again_after_some_metres(ambiguity_m: float, holds_m: float) -> None:
    """Sooner where it looks like others."""
    tracker, holds_s = driven(), holds_m / 10
    tracker.update(compared(1.0, ambiguity_m))
    relying = tracker.prior(at_s(1.2))
    assert relying.ambiguity_m == ambiguity_m
    tracker.update(compared(1.2, ambiguity_m, relying))
    assert tracker.prior(at_s(0.9 + holds_s)).ambiguity_m == ambiguity_m
    assert tracker.prior(at_s(1.1 + holds_s)).ambiguity_m is None


def test_the_place_of_a_lost_vehicle_is_compared_anew() -> None:
    tracker = driven(can_search=False)
    tracker.update(compared(1.0, 0.0))
    for _ in range(MISSES - 1):
        tracker.update(missed(1.1))
    assert tracker.prior(at_s(1.1)).ambiguity_m == 0.0
    for _ in range(2):
        tracker.update(missed(1.1))
    assert tracker.prior(at_s(1.1)).ambiguity_m is None
