"""The state of the node: a function of facts, and what the live node says of itself."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rosbags.typesys import get_types_from_msg

from helpers.messages import up_to_frame, without
from pixloc_ros.ros.state import Cause, NodeStatus, State, judge
from pixloc_ros.types import Reason

ROOT = Path(__file__).resolve().parents[2]


def facts(**changes: Any) -> NodeStatus:
    """Of a node that tracks, but for the changes."""
    tracking: dict[str, Any] = {
        "map_loaded": True,
        "image_age_s": 0.1,
        "reason": Reason.OK,
        "accepted_age_s": 0.1,
    }
    return NodeStatus(**{**tracking, **changes})


@pytest.mark.parametrize(
    ("known", "state", "reason"),
    [
        (NodeStatus(), State.WAITING_MAP, Cause.NOT_CONFIGURED),
        (facts(fault="no such map"), State.ERROR, Cause.CONFIGURATION),
        (facts(active=False), State.DISABLED, Cause.NOT_ACTIVE),
        (NodeStatus(shut_down=True, fault="no map"), State.DISABLED, Cause.SHUT_DOWN),
        (facts(enabled=False), State.DISABLED, Cause.DISABLED),
        (NodeStatus(map_loaded=True), State.WAITING_IMAGE, Cause.NO_IMAGE),
        (facts(image_age_s=3.0, accepted_age_s=3.0), State.COASTING, Cause.IMAGES_STOPPED),
        (facts(image_age_s=9.0, accepted_age_s=9.0), State.WAITING_IMAGE, Cause.IMAGES_STOPPED),
        (facts(reason=None, accepted_age_s=None), State.INITIALIZING, Cause.FIRST_FRAME),
        (facts(), State.TRACKING, Reason.OK),
        (facts(odometry_stopped=True), State.DEGRADED, Cause.ODOMETRY_STOPPED),
        (facts(odometry_refused="frame"), State.DEGRADED, Cause.ODOMETRY_REFUSED),
        (
            facts(reason=Reason.CALIBRATION_UNSETTLED, accepted_age_s=None),
            State.WAITING_CAMERA_INFO,
            Reason.CALIBRATION_UNSETTLED,
        ),
        (facts(cameras_missing=("left",)), State.DEGRADED, Cause.CAMERA_MISSING),
        (facts(accepted_share=0.5), State.DEGRADED, Cause.FEW_ACCEPTED),
        (facts(accepted_share=0.8), State.TRACKING, Reason.OK),
        (facts(reason=Reason.HIGH_COST, accepted_age_s=5.0), State.COASTING, Reason.HIGH_COST),
        (facts(reason=Reason.HIGH_COST, accepted_age_s=5.1), State.LOST, Reason.HIGH_COST),
        (facts(reason=Reason.HIGH_COST, accepted_age_s=None), State.INITIALIZING, Reason.HIGH_COST),
        (facts(reason=Reason.NO_PRIOR, accepted_age_s=9.0), State.WAITING_PRIOR, Reason.NO_PRIOR),
        (
            facts(reason=Reason.NO_CAMERA_INFO, accepted_age_s=None),
            State.WAITING_CAMERA_INFO,
            Reason.NO_CAMERA_INFO,
        ),
        (
            facts(reason=Reason.NO_EXTRINSICS, accepted_age_s=None),
            State.WAITING_EXTRINSICS,
            Reason.NO_EXTRINSICS,
        ),
        (
            facts(reason=Reason.INTERNAL_ERROR, accepted_age_s=None),
            State.ERROR,
            Reason.INTERNAL_ERROR,
        ),
    ],
)
def test_the_state_follows_from_the_facts(
    known: NodeStatus, state: State, reason: Reason | Cause
) -> None:
    verdict = judge(known, max_coast_s=5.0)
    assert (verdict.state, verdict.reason) == (state, reason)


def test_the_message_has_the_states_and_the_docs_have_every_code() -> None:
    name = "pixloc_ros/msg/LocalizationState"
    definition = (ROOT / "msg" / "LocalizationState.msg").read_text()
    constants, _ = get_types_from_msg(definition, name)[name]
    assert {value for _, _, value in constants} == set(State)
    described = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
    headings = set(re.findall(r"^## (\w+)$", described, re.MULTILINE))
    assert headings == (set(Reason) | set(Cause)) - {Reason.OK}
    table = (ROOT / "docs" / "guide" / "node.md").read_text()
    assert all(f"| `{state}` |" in table for state in State)


@pytest.mark.ros
@pytest.mark.slow
def test_the_state_is_latched_and_says_every_change(rig: Any, bag: Any) -> None:
    from helpers.live import LATCHED
    from pixloc_ros.msg import LocalizationState

    states = rig.listen(LocalizationState, "state", LATCHED)
    rig.until(lambda: states, "the state of before")
    assert (states[-1].state, states[-1].reason) == ("WAITING_IMAGE", "no_image")
    messages = without(bag, "/gnss/fix")
    # A camera that goes on: on a busy machine a verdict may come when the image is too old.
    shown = "/image", bag.on("/image")[0]
    rig.play(up_to_frame(messages, 1))
    rig.until_shown(
        *shown,
        lambda: ("WAITING_PRIOR", "no_prior") in [(s.state, s.reason) for s in states],
        "the want of a prior",
        every_s=1.0,
    )
    rest = without(bag)[len(up_to_frame(without(bag), 1)) :]
    rig.play(up_to_frame(rest, 3))
    shown = "/image", bag.on("/image")[2]
    tracking = "tracking"
    rig.until_shown(*shown, lambda: "TRACKING" in [s.state for s in states], tracking, every_s=1.0)
    rig.until(lambda: states[-1].reason == "images_stopped", "the want of images")
    told = [(s.state, s.reason) for s in states]
    assert all(a != b for a, b in pairwise(told)), "published without a change"
    assert rig.change_state("deactivate")
    rig.until(lambda: states[-1].state == "DISABLED", "an inactive node")
    assert states[-1].reason == "not_active"
