"""What the node is doing, in one word and one line, from a few facts. Needs no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pixloc_ros.results import Reason

IMAGE_TIMEOUT_S = 2.0  # without images for so long the camera counts as silent


class State(StrEnum):
    """Stable names, see docs/node.md."""

    ERROR = "ERROR"
    WAITING_MAP = "WAITING_MAP"
    DISABLED = "DISABLED"
    WAITING_IMAGE = "WAITING_IMAGE"
    WAITING_CAMERA_INFO = "WAITING_CAMERA_INFO"
    WAITING_EXTRINSICS = "WAITING_EXTRINSICS"
    WAITING_PRIOR = "WAITING_PRIOR"
    INITIALIZING = "INITIALIZING"
    TRACKING = "TRACKING"
    COASTING = "COASTING"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the state depends on. Ages are in seconds of the wall clock; None: never."""

    fault: str = ""  # why the node could not be configured
    map_loaded: bool = False
    enabled: bool = True
    image_age_s: float | None = None
    reason: Reason | None = None  # verdict on the last frame
    message: str = ""
    accepted_age_s: float | None = None


_WAITING = {
    Reason.NO_CAMERA_INFO: State.WAITING_CAMERA_INFO,
    Reason.NO_EXTRINSICS: State.WAITING_EXTRINSICS,
    Reason.NO_PRIOR: State.WAITING_PRIOR,
    Reason.INTERNAL_ERROR: State.ERROR,
}


def judge(facts: Facts, max_coast_s: float) -> tuple[State, str]:
    """The state and one line that says why."""
    if facts.fault:
        return State.ERROR, facts.fault
    if not facts.map_loaded:
        return State.WAITING_MAP, "not configured yet"
    if not facts.enabled:
        return State.DISABLED, "images are ignored until ~/set_enabled is called"
    coasting = facts.accepted_age_s is not None and facts.accepted_age_s <= max_coast_s
    if facts.image_age_s is None or facts.image_age_s > IMAGE_TIMEOUT_S:
        silent = "no image yet" if facts.image_age_s is None else "no image any more"
        return (State.COASTING if coasting else State.WAITING_IMAGE), silent
    if facts.reason is None:
        return State.INITIALIZING, "working on the first frame"
    if facts.reason is Reason.OK:
        return State.TRACKING, facts.message
    if coasting:
        return State.COASTING, facts.message
    if facts.reason in _WAITING:
        return _WAITING[facts.reason], facts.message
    never = facts.accepted_age_s is None
    return (State.INITIALIZING if never else State.LOST), facts.message
