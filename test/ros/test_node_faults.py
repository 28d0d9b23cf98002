"""What comes in is wrong: the live node says what happened, publishes no wrong pose, recovers.

Elsewhere: what is missing, bad messages, a changed camera, bags that loop, frames that come too
fast (test_node.py), wheels that slip (test_node_integrity.py), maps that are missing or altered
(test_node_services.py), and faults of the node's own (test_node_breakdowns.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.messages import changed, shifted, up_to_frame, without
from helpers.node_checks import (
    Messages,
    assert_no_wrong_pose,
    assert_without_pose,
    frames,
    reasons,
    state,
)
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.sensors import decoding

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def altered(messages: Iterable[tuple[str, Any]], topic: str, change: Callable[[Any], Any]) -> Any:
    """The same with every message of a topic changed."""
    return [(name, change(message) if name == topic else message) for name, message in messages]


def later(messages: Messages, seconds: float) -> Messages:
    """The same at another time."""
    return [(t, shifted(m, seconds) if hasattr(m, "header") else m) for t, m in messages]


def ahead(odometry: Any, T_shift: np.ndarray, seconds: float = 0.0) -> Any:
    """Odometry that believes to be elsewhere, by a motion (4, 4) in its own frame."""
    from pixloc_ros.ros import conversions

    pose = conversions.pose_message(
        T_shift @ decoding.pose(odometry.pose.pose), np.zeros((6, 6)), 0, ""
    ).pose.pose
    return changed(shifted(odometry, seconds), **{"pose.pose": pose})


def feed(rig: Any, messages: Messages) -> None:
    """Send all but images, no faster than the node takes them."""
    for index, message in enumerate(messages):
        rig.send(*message)
        if index % 10 == 9:
            rig.until(rig.arrived, "what was sent")
    rig.until(rig.arrived, "what was sent")


def test_a_camera_that_stops_for_five_seconds_at_speed(
    rig: Any, bag: Any, truth: Trajectory
) -> None:
    outage_s, speed_mps, rate_hz = 5.0, 8.0, 20
    messages = without(bag, "/gnss/fix")
    first = [*up_to_frame(without(bag), 4)]
    assert all(v.localized for v in rig.play(first))
    newest = [message for topic, message in first if topic == "/odom"][-1]
    T_odom_base = decoding.pose(newest.pose.pose)
    rig.until(lambda: "images_stopped" in rig.diagnostics.get("state reason", ""), "the silence")
    assert rig.state.startswith(("COASTING", "WAITING_IMAGE"))  # the latter on a busy machine
    # It drives back and forth, 40 m in all, and the odometry drifts as it is allowed to.
    drift = se3.make(Rotation.from_euler("z", 1.5, degrees=True).as_matrix(), [0.6, -0.3, 0.0])
    ticks = round(outage_s * rate_hz)
    outage: Messages = []
    for tick in range(1, ticks + 1):
        way_m = speed_mps / rate_hz * min(tick, ticks - tick)
        share = se3.interpolate(np.eye(4), drift, tick / ticks)
        T_shift = T_odom_base @ share @ se3.make(np.eye(3), [-way_m, 0.0, 0.0])
        T_shift = T_shift @ se3.inverse(T_odom_base)
        outage.append(("/odom", ahead(newest, T_shift, tick / rate_hz)))
    feed(rig, outage)
    T_shift = T_odom_base @ drift @ se3.inverse(T_odom_base)
    rest = altered(frames(messages, 4), "/odom", lambda m: ahead(m, T_shift))
    verdicts = rig.play(later(rest, outage_s))
    assert "ok" in reasons(verdicts[:3]), [v.message for v in verdicts]
    assert all(v.localized for v in verdicts[2:])
    assert state(rig) == ("TRACKING", "ok")
    assert_no_wrong_pose(rig, truth, outage_s)


def test_a_camera_that_goes_black(rig: Any, bag: Any, truth: Trajectory) -> None:
    rng = np.random.default_rng(0)

    def black(image: Any) -> Any:
        return changed(image, data=rng.integers(0, 3, len(image.data), np.uint8).tobytes())

    messages = without(bag)
    assert all(v.localized for v in rig.play(up_to_frame(messages, 4)))
    dark = rig.play(altered(frames(messages, 4, 9), "/image", black))
    looked_at = {
        "high_cost",
        "few_inliers",
        "low_contrast",
        "halves_disagree",
        "far_from_prior",
        "not_converged",
        "ill_conditioned",
        "non_finite",
    }
    assert set(reasons(dark)) <= looked_at, [v.message for v in dark]
    assert_without_pose(rig, dark[-1].reason)
    light = rig.play(frames(messages, 9))
    assert reasons(light) == ["ok"] * len(light)
    rig.until_state("DEGRADED", "/image", bag.on("/image")[-1])  # it remembers the darkness
    assert_no_wrong_pose(rig, truth)


def test_a_camera_that_hangs_repeats_its_last_picture(
    rig: Any, bag: Any, truth: Trajectory
) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 4))
    picture = bag.on("/image")[3].data
    verdicts = rig.play(
        altered(frames(messages, 4, 8), "/image", lambda image: changed(image, data=picture))
    )
    assert set(reasons(verdicts)) == {"frozen_image"}, [v.message for v in verdicts]
    assert_without_pose(rig, "frozen_image")
    assert all(v.localized for v in rig.play(frames(messages, 8)))
    assert_no_wrong_pose(rig, truth)


def test_a_camera_of_another_clock_than_the_odometry(rig: Any, bag: Any, truth: Trajectory) -> None:
    late = altered(without(bag), "/image", lambda image: shifted(image, 30.0))
    verdicts = rig.play(up_to_frame(late, 6))
    assert not any(v.prior_source == "odometry" for v in verdicts), [v.message for v in verdicts]
    assert_no_wrong_pose(rig, truth, 30.0)


def test_a_camera_that_drops_to_one_hertz(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 3))
    feed(rig, [(t, m) for t, m in frames(messages, 3, 12) if t not in ("/image", "/gnss/fix")])
    verdicts = rig.play(frames(messages, 12, 13))
    assert [(v.reason, v.prior_source) for v in verdicts] == [("ok", "odometry")]
    assert state(rig) == ("TRACKING", "ok")
    assert_no_wrong_pose(rig, truth)


def test_odometry_that_stops_and_comes_back(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 4))
    without_odometry = [(t, m) for t, m in frames(messages, 4, 10) if t != "/odom"]
    verdicts = rig.play(without_odometry)
    assert all(v.localized for v in verdicts), [v.message for v in verdicts]
    assert {v.prior_source for v in verdicts[3:]} == {"motion"}, "carried on for 0.2 s at most"
    assert state(rig) == ("DEGRADED", "odometry_stopped")
    again = rig.play(frames(messages, 10))
    assert all(v.localized for v in again)
    assert again[-1].prior_source == "odometry"
    assert state(rig) == ("TRACKING", "ok")
    assert_no_wrong_pose(rig, truth)


def test_odometry_that_jumps_once_and_then_for_good(rig: Any, bag: Any, truth: Trajectory) -> None:
    away = se3.make(np.eye(3), [50.0, 0.0, 0.0])
    messages = without(bag)
    rig.play(up_to_frame(messages, 4))
    once = frames(messages, 4, 6)
    odd = next(i for i, (topic, _) in enumerate(once) if topic == "/odom")
    once[odd] = ("/odom", ahead(once[odd][1], away))
    verdicts = rig.play(once)
    assert [(v.reason, v.prior_source) for v in verdicts] == [("ok", "odometry")] * 2
    verdicts = rig.play(altered(frames(messages, 6), "/odom", lambda m: ahead(m, away)))
    assert all(v.localized for v in verdicts), [v.message for v in verdicts]
    assert verdicts[-1].prior_source == "odometry"
    report = rig.report_with_camera()
    assert report["count prior.rejected.odometry_jump"] == "2"
    assert report["count prior.rejected.odometry_restarted"] == "1"
    assert report["state"] == "TRACKING"
    assert_no_wrong_pose(rig, truth)


def test_a_fix_fifty_metres_off(rig: Any, bag: Any, truth: Trajectory) -> None:
    def off(fix: Any) -> Any:
        return changed(fix, latitude=fix.latitude + 50.0 / 111_000.0)

    messages = without(bag)
    wrong = rig.play(altered(up_to_frame(messages, 2), "/gnss/fix", off))
    assert not any(v.localized for v in wrong)
    assert state(rig) == ("INITIALIZING", wrong[-1].reason)
    fixes = [i for i, (topic, _) in enumerate(messages) if topic == "/gnss/fix"]
    late = next(i for i in fixes if i > len(up_to_frame(messages, 8)))
    messages[late] = ("/gnss/fix", off(messages[late][1]))
    verdicts = rig.play(frames(messages, 2))
    assert reasons(verdicts[3:]) == ["ok"] * len(verdicts[3:])
    report = rig.report_with_camera()
    assert int(report["count prior.rejected.gnss_jump"]) >= 2, "one at the start and one later"
    assert report["state"] in ("TRACKING", "DEGRADED")
    assert_no_wrong_pose(rig, truth)


@pytest.mark.parametrize("topic", ["/odom", "/image", "/gnss/fix"])
def test_one_stamp_an_hour_ahead_voids_nothing(
    rig: Any, bag: Any, truth: Trajectory, topic: str
) -> None:
    messages = without(bag)
    assert all(v.localized for v in rig.play(up_to_frame(messages, 4)))
    middle = frames(messages, 4, 8)
    odd = next(i for i, (name, _) in enumerate(middle) if name == topic)
    middle[odd] = (topic, shifted(middle[odd][1], 3600.0))
    verdicts = rig.play([m for m in middle if m[0] != "/gnss/fix" or topic == "/gnss/fix"])
    odd_ones = 1 if topic == "/image" else 0
    assert sum(not v.localized for v in verdicts) == odd_ones, reasons(verdicts)
    rest = rig.play(without_fixes(frames(messages, 8)))
    assert [(v.reason, v.prior_source) for v in rest] == [("ok", "odometry")] * len(rest)
    assert not any("time.went_back" in key for key in rig.report())
    assert_no_wrong_pose(rig, truth)


def without_fixes(messages: Messages) -> Messages:
    return [(topic, message) for topic, message in messages if topic != "/gnss/fix"]


def test_a_clock_that_is_set_an_hour_ahead(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    assert all(v.localized for v in rig.play(up_to_frame(messages, 4)))
    verdicts = rig.play(later(frames(messages, 4), 3600.0))
    assert verdicts[3].localized, [v.message for v in verdicts]
    assert all(v.localized for v in verdicts[3:])
    assert_no_wrong_pose(rig, truth, 3600.0)


def test_messages_that_come_twice_or_out_of_order(rig: Any, bag: Any, truth: Trajectory) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 3))
    twice = [pair for pair in frames(messages, 3, 6) for _ in range(2)]
    assert all(v.localized for v in rig.play(twice))
    swapped = frames(messages, 6, 12)
    for topic in ("/odom", "/image", "/gnss/fix"):
        own = [i for i, (name, _) in enumerate(swapped) if name == topic]
        for a, b in zip(own[::2], own[1::2], strict=False):
            swapped[a], swapped[b] = swapped[b], swapped[a]
    verdicts = rig.play(swapped)
    assert reasons(verdicts) == ["ok"] * 6, [v.message for v in verdicts]
    rest = rig.play(frames(messages, 12))
    assert [(v.reason, v.prior_source) for v in rest] == [("ok", "odometry")] * len(rest)
    report = rig.report_with_camera()
    assert int(report["count prior.rejected.odometry_out_of_order"]) > 10
    assert not any("time.went_back" in key for key in report)
    assert report["state"] == "TRACKING"
    assert_no_wrong_pose(rig, truth)
