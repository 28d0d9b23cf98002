"""What tests ask a running node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.messages import up_to_frame
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.sensors import decoding

Messages = list[tuple[str, Any]]


RIGHT_M, RIGHT_DEG = 0.25, 1.0


def frames(messages: Messages, begin: int, end: int | None = None) -> Messages:
    """From frame number `begin` on, and what comes between it and frame number `end`."""
    first = len(up_to_frame(messages, begin))
    return messages[first:] if end is None else messages[first : len(up_to_frame(messages, end))]


def assert_no_wrong_pose(rig: Any, truth: Trajectory, late_s: float = 0.0) -> None:
    """All poses so far are right; `late_s`: how much later they are stamped than in the bag."""
    rig.until(lambda: len(rig.poses) == sum(s.localized for s in rig.statuses), "all poses")
    T_true = dict(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True))
    for pose in rig.poses:
        T_map_base = decoding.pose(pose.pose.pose)
        stamp_ns = decoding.stamp_ns(pose.header)
        T = T_true.get(stamp_ns)
        T = T_true[stamp_ns - round(late_s * 1e9)] if T is None else T
        assert se3.distance_m(T_map_base, T) < RIGHT_M, stamp_ns
        assert se3.angle_deg(T_map_base, T) < RIGHT_DEG, stamp_ns


def reasons(verdicts: list[Any]) -> list[str]:
    return [verdict.reason for verdict in verdicts]


def state(rig: Any) -> tuple[str, str]:
    """State and reason in a report that begins now."""
    report = rig.report_with_camera()
    return report["state"], report["state reason"]


def assert_without_pose(rig: Any, reason: str) -> None:
    """The state says why there is no pose; on a busy machine the time to coast may be over."""
    name, told = state(rig)
    assert (name in ("COASTING", "LOST"), told) == (True, reason), rig.state


def errors(statuses: list[Any], poses: list[Any], truth: Trajectory) -> np.ndarray:
    """Distance (m) and angle (deg) to the truth for each pose (N, 2)."""
    T_true = dict(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True))
    pairs = [(decoding.pose(p.pose.pose), T_true[decoding.stamp_ns(p.header)]) for p in poses]
    return np.array([(se3.distance_m(*pair), se3.angle_deg(*pair)) for pair in pairs])


def relocalize(rig: Any, hint: Any = None, timeout_s: float = 600.0) -> Any:
    """Call, and return the future of the answer once the node has begun, or refused."""
    from geometry_msgs.msg import PoseWithCovarianceStamped

    from pixloc_ros.srv import Relocalize

    request = Relocalize.Request(use_hint=hint is not None, timeout_s=timeout_s)
    request.hint = hint or PoseWithCovarianceStamped()
    count = "count relocalization.begun"
    before = rig.report().get(count)
    answer = rig.begin_call(Relocalize, "relocalize", request)
    rig.until(lambda: answer.done() or rig.diagnostics.get(count) != before, "the node to begin")
    return answer


def examine(
    monkeypatch: pytest.MonkeyPatch,
    domain: int,
    feed: Callable[[], None],
    check: Callable[[dict[str, Any]], None],
) -> None:
    """Check the findings by subject, while `feed` is called again and again.

    What is not found yet is looked for once more, and longer: on a busy machine DDS takes its time
    to join so many endpoints, and messages come late.
    """
    from pixloc_ros.ros import doctor_live

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    for seconds in (1.0, 4.0, 16.0, 64.0):
        monkeypatch.setattr(doctor_live, "_DISCOVERY_S", 2 * seconds)
        findings: list[Any] = []

        def examine_once(seconds: float = seconds, findings: list[Any] = findings) -> None:
            findings.extend(doctor_live.examine_live(seconds))

        doctor = threading.Thread(target=examine_once)
        doctor.start()
        while doctor.is_alive():
            feed()
            doctor.join(0.05)
        try:
            return check({finding.subject: finding for finding in findings})
        except AssertionError:
            if seconds == 64.0:
                raise
