"""What each camera says of itself, and whether it says it for good."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.sensors.events import CameraInfoEvent, RefusedMessage, Size

HOLD_NS = 1_000_000_000  # a calibration that differs from the one before counts when it has held
ALTERNATION_NS = 10_000_000_000  # and so long where it has given way before: two publishers


@dataclass(slots=True)
class _Statement:
    """What one camera says."""

    newest: CameraInfoEvent
    description: str
    before: str = ""  # the calibration that the newest one replaced
    changed_ns: int | None = None  # when it did
    hold_ns: int = HOLD_NS
    given_way_ns: dict[str, int] = field(default_factory=dict)  # when calibrations were replaced


class Calibrations:
    """The newest calibration of each camera; one that is refused voids the one before.

    An old one may be of another setting of the lens. One that changes during a drive may be of
    another publisher: until it has held, it counts as little as the one before.
    """

    def __init__(self) -> None:
        self._statements: dict[str, _Statement] = {}
        self._problems: dict[str, str] = {}
        self._anew: set[str] = set()  # cameras whose next calibration counts at once

    def take(self, event: CameraInfoEvent, now_ns: int) -> str:
        """Take a calibration; return how it differs from the one before, if it does.

        now_ns: the newest stamp of all data, since that of the message may be anything.
        """
        name, description = event.camera_name, describe(event.camera)
        self._problems.pop(name, None)
        statement = self._statements.get(name)
        if statement is None or name in self._anew:
            self._anew.discard(name)
            self._statements[name] = _Statement(event, description)
            return ""
        statement.newest = event
        if description == statement.description:
            return ""
        statement.before, statement.description = statement.description, description
        gave_way_ns = statement.given_way_ns.get(description)
        alternates = gave_way_ns is not None and now_ns - gave_way_ns <= ALTERNATION_NS
        statement.hold_ns = ALTERNATION_NS if alternates else HOLD_NS
        statement.given_way_ns = {statement.before: now_ns} | {
            other: then_ns
            for other, then_ns in statement.given_way_ns.items()
            if other != statement.before and now_ns - then_ns <= ALTERNATION_NS
        }
        statement.changed_ns = now_ns
        return description

    def refuse(self, refused: RefusedMessage) -> None:
        """Void a camera's calibration until another one comes."""
        self._problems[refused.camera_name] = refused.message

    def begin_again(self) -> None:
        """Believe what is said from now on: time went back, and with it another recording began."""
        self._anew.update(self._statements)

    def of(self, camera_name: str) -> CameraInfoEvent | None:
        """Return the newest calibration, unless one was refused since."""
        if camera_name in self._problems:
            return None
        statement = self._statements.get(camera_name)
        return statement.newest if statement else None

    def size(self, camera_name: str) -> Size | None:
        """Return width and height of the images that are calibrated for."""
        event = self.of(camera_name)
        return (event.camera.width, event.camera.height) if event else None

    def problem(self, camera_name: str) -> str:
        """Return why the last one was refused; empty where none was."""
        return self._problems.get(camera_name, "")

    def unsettled(self, camera_name: str, stamp_ns: int) -> str:
        """Return why the calibration does not count yet at the stamp of an image, or ""."""
        statement = self._statements.get(camera_name)
        if statement is None or statement.changed_ns is None or camera_name in self._anew:
            return ""
        if stamp_ns - statement.changed_ns >= statement.hold_ns:
            return ""
        said = f"{statement.before}, then {statement.description}"
        if statement.hold_ns == HOLD_NS:
            return f"camera_info has changed and has to hold for {HOLD_NS / 1e9:g} s: {said}"
        return f"camera_info says two things in turn, has it two publishers? {said}"


def describe(camera: Camera) -> str:
    """Describe a calibration in one line."""
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    distortion = [round(value, 6) for value in camera.distortion.tolist()]
    return (
        f"{camera.model} {camera.width}x{camera.height} f {fx:.3f} {fy:.3f} c {cx:.3f} {cy:.3f} "
        f"d {distortion}"
    )
