"""Judge what the node is doing and why: a state, a stable code and one line, from a few values.

A pure function of NodeStatus, so the node cannot be in a state that these values do not justify.
Needs no ROS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pixloc_ros.types import Reason

IMAGE_TIMEOUT_S = 2.0  # after this long without images the camera counts as silent
MIN_ACCEPTED_SHARE = 0.8  # of the latest frames; below it, tracking is degraded


class State(StrEnum):
    """States of the node; the names are stable, see docs/guide/node.md."""

    ERROR = "ERROR"
    WAITING_MAP = "WAITING_MAP"
    DISABLED = "DISABLED"
    WAITING_IMAGE = "WAITING_IMAGE"
    WAITING_CAMERA_INFO = "WAITING_CAMERA_INFO"
    WAITING_EXTRINSICS = "WAITING_EXTRINSICS"
    WAITING_PRIOR = "WAITING_PRIOR"
    INITIALIZING = "INITIALIZING"
    TRACKING = "TRACKING"
    DEGRADED = "DEGRADED"
    COASTING = "COASTING"
    LOST = "LOST"


class Cause(StrEnum):
    """Reasons of a state that no single frame has; stable, see docs/guide/troubleshooting.md."""

    CONFIGURATION = "configuration"
    NOT_CONFIGURED = "not_configured"
    NOT_ACTIVE = "not_active"
    SHUT_DOWN = "shut_down"
    DISABLED = "disabled"
    NO_IMAGE = "no_image"
    IMAGES_STOPPED = "images_stopped"
    FIRST_FRAME = "first_frame"
    ODOMETRY_STOPPED = "odometry_stopped"
    ODOMETRY_REFUSED = "odometry_refused"
    FEW_ACCEPTED = "few_accepted"
    CAMERA_MISSING = "camera_missing"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """All values that the state depends on. Ages are in seconds of the wall clock; None: never."""

    shut_down: bool = False  # by a lifecycle transition, after which there is no other
    fault: str = ""  # why the node could not be configured
    map_loaded: bool = False
    active: bool = True
    enabled: bool = True
    image_age_s: float | None = None
    reason: Reason | None = None  # verdict on the last frame
    message: str = ""
    accepted_age_s: float | None = None
    accepted_share: float = 1.0  # of the latest frames, since the first accepted one
    odometry_stopped: bool = False  # there was odometry, but none for the latest frame
    odometry_refused: str = ""  # why no odometry message was usable so far; empty: none refused
    tiles_missing: str = ""  # tiles of a map behind a URL that recent frames lacked, and why
    cameras_missing: tuple[str, ...] = ()  # of a rig: those without an image in the latest frame


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state, a stable code that says why, and one line for people."""

    state: State
    reason: Reason | Cause
    message: str


_WAITING = {
    Reason.NO_CAMERA_INFO: State.WAITING_CAMERA_INFO,
    Reason.CALIBRATION_UNSETTLED: State.WAITING_CAMERA_INFO,
    Reason.NO_EXTRINSICS: State.WAITING_EXTRINSICS,
    Reason.NO_PRIOR: State.WAITING_PRIOR,
    Reason.INTERNAL_ERROR: State.ERROR,
}


def judge(status: NodeStatus, max_coast_s: float) -> StateReport:
    """Return the state that follows from a status."""
    if idle := _idle(status):
        return idle
    age_s = status.accepted_age_s
    coasting = age_s is not None and age_s <= max_coast_s
    if status.image_age_s is None:
        return StateReport(State.WAITING_IMAGE, Cause.NO_IMAGE, "no image yet")
    if status.image_age_s > IMAGE_TIMEOUT_S:
        state = State.COASTING if coasting else State.WAITING_IMAGE
        return StateReport(state, Cause.IMAGES_STOPPED, "images have stopped")
    if status.reason is None:
        return StateReport(State.INITIALIZING, Cause.FIRST_FRAME, "working on the first frame")
    if status.reason is Reason.OK:
        return _tracking(status)
    return StateReport(_without_pose(status, coasting), status.reason, status.message)


def _idle(status: NodeStatus) -> StateReport | None:
    """Return the report that says why no frame is processed; None if frames are."""
    if status.shut_down:
        return StateReport(State.DISABLED, Cause.SHUT_DOWN, "shut down: start the node anew")
    if status.fault:
        return StateReport(State.ERROR, Cause.CONFIGURATION, status.fault)
    if not status.map_loaded:
        return StateReport(State.WAITING_MAP, Cause.NOT_CONFIGURED, "not configured yet")
    if not status.active:
        return StateReport(State.DISABLED, Cause.NOT_ACTIVE, "configured, but not active")
    if not status.enabled:
        message = "images are ignored until ~/set_enabled is called"
        return StateReport(State.DISABLED, Cause.DISABLED, message)
    return None


def _tracking(status: NodeStatus) -> StateReport:
    """Judge a status whose latest frame was accepted: whether anything else is wrong."""
    if status.odometry_stopped:
        message = "odometry has stopped: the last motion is assumed to continue"
        return StateReport(State.DEGRADED, Cause.ODOMETRY_STOPPED, message)
    if status.odometry_refused:
        message = f"no odometry message can be used: {status.odometry_refused}"
        return StateReport(State.DEGRADED, Cause.ODOMETRY_REFUSED, message)
    if status.tiles_missing:
        message = f"map tiles are missing: {status.tiles_missing}"
        return StateReport(State.DEGRADED, Reason.TILES_MISSING, message)
    if status.cameras_missing:
        message = (
            f"no image of camera {', '.join(status.cameras_missing)}: the other cameras continue"
        )
        return StateReport(State.DEGRADED, Cause.CAMERA_MISSING, message)
    if status.accepted_share < MIN_ACCEPTED_SHARE:
        message = f"only {100 * status.accepted_share:.0f} % of the last frames were accepted"
        return StateReport(State.DEGRADED, Cause.FEW_ACCEPTED, message)
    return StateReport(State.TRACKING, Reason.OK, status.message)


def _without_pose(status: NodeStatus, coasting: bool) -> State:
    """Judge a status whose latest frame was not accepted."""
    if coasting:
        return State.COASTING
    if status.reason in _WAITING:
        return _WAITING[status.reason]
    return State.INITIALIZING if status.accepted_age_s is None else State.LOST
