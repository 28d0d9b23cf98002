"""Keep the calibration of each camera, and judge whether it is stable."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.sensors.events import CameraInfoEvent, RefusedMessage, Size

HOLD_NS = 1_000_000_000  # how long a changed calibration must stay the same before it is used
ALTERNATION_NS = 10_000_000_000  # the same for one that was replaced before: two publishers?


@dataclass(slots=True)
class _CalibrationHistory:
    """The calibration that one camera publishes, and how it has changed."""

    newest: CameraInfoEvent
    description: str
    before: str = ""  # description of the calibration that the newest one replaced
    changed_ns: int | None = None  # when it was replaced
    hold_ns: int = HOLD_NS
    replaced_ns: dict[str, int] = field(default_factory=dict)  # when others were replaced


class Calibrations:
    """The newest calibration of each camera; a refused one invalidates the one before.

    The one before may belong to another lens setting. A calibration that changes during a drive may
    come from a second publisher: until it has been stable for a while, neither it nor the one
    before is used.
    """

    def __init__(self) -> None:
        self._histories: dict[str, _CalibrationHistory] = {}
        self._problems: dict[str, str] = {}
        self._trusted_next: set[str] = set()  # cameras whose next calibration is trusted at once

    def take(self, event: CameraInfoEvent, now_ns: int) -> str:
        """Take a calibration; return its description if it differs from the one before, else "".

        now_ns: the newest stamp of all data, because the message's own stamp may be anything.
        """
        name, description = event.camera_name, describe(event.camera)
        self._problems.pop(name, None)
        history = self._histories.get(name)
        if history is None or name in self._trusted_next:
            self._trusted_next.discard(name)
            self._histories[name] = _CalibrationHistory(event, description)
            return ""
        history.newest = event
        if description == history.description:
            return ""
        history.before, history.description = history.description, description
        was_replaced_ns = history.replaced_ns.get(description)
        alternates = was_replaced_ns is not None and now_ns - was_replaced_ns <= ALTERNATION_NS
        history.hold_ns = ALTERNATION_NS if alternates else HOLD_NS
        history.replaced_ns = {history.before: now_ns} | {
            other: then_ns
            for other, then_ns in history.replaced_ns.items()
            if other != history.before and now_ns - then_ns <= ALTERNATION_NS
        }
        history.changed_ns = now_ns
        return description

    def refuse(self, refused: RefusedMessage) -> None:
        """Invalidate a camera's calibration until another one comes."""
        self._problems[refused.camera_name] = refused.message

    def begin_again(self) -> None:
        """Trust the next calibrations at once: time went back, so another recording has begun."""
        self._trusted_next.update(self._histories)

    def of(self, camera_name: str) -> CameraInfoEvent | None:
        """Return a camera's newest calibration; None if there is none or one was refused since."""
        if camera_name in self._problems:
            return None
        history = self._histories.get(camera_name)
        return history.newest if history else None

    def size(self, camera_name: str) -> Size | None:
        """Return width and height of the calibrated images; None without a calibration."""
        event = self.of(camera_name)
        return (event.camera.width, event.camera.height) if event else None

    def problem(self, camera_name: str) -> str:
        """Return why the camera's last calibration was refused; empty if it was not."""
        return self._problems.get(camera_name, "")

    def unsettled(self, camera_name: str, stamp_ns: int) -> str:
        """Return why the calibration may not be used yet for an image of this stamp, or ""."""
        history = self._histories.get(camera_name)
        if history is None or history.changed_ns is None or camera_name in self._trusted_next:
            return ""
        if stamp_ns - history.changed_ns >= history.hold_ns:
            return ""
        said = f"{history.before}, then {history.description}"
        if history.hold_ns == HOLD_NS:
            return f"camera_info has changed and has to hold for {HOLD_NS / 1e9:g} s: {said}"
        return (
            f"camera_info alternates between two calibrations; does it have two publishers? {said}"
        )


def describe(camera: Camera) -> str:
    """Describe a calibration in one line."""
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    distortion = [round(value, 6) for value in camera.distortion.tolist()]
    return (
        f"{camera.model} {camera.width}x{camera.height} f {fx:.3f} {fy:.3f} c {cx:.3f} {cy:.3f} "
        f"d {distortion}"
    )
