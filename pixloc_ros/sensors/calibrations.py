"""What each camera said of itself last."""

from __future__ import annotations

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.sensors.events import CameraInfoEvent, RefusedMessage, Size


class Calibrations:
    """The newest calibration of each camera; one that is refused voids the one before.

    An old one may be of another setting of the lens.
    """

    def __init__(self) -> None:
        self._newest: dict[str, CameraInfoEvent] = {}
        self._problems: dict[str, str] = {}

    def take(self, event: CameraInfoEvent) -> str:
        """Put a calibration in force; return how it differs from the one before, if it does."""
        before = self._newest.get(event.camera_name)
        self._newest[event.camera_name] = event
        self._problems.pop(event.camera_name, None)
        changed = before is not None and describe(before.camera) != describe(event.camera)
        return describe(event.camera) if changed else ""

    def refuse(self, refused: RefusedMessage) -> None:
        """Void a camera's calibration."""
        self._newest.pop(refused.camera_name, None)
        self._problems[refused.camera_name] = refused.message

    def of(self, camera_name: str) -> CameraInfoEvent | None:
        """Return the calibration in force."""
        return self._newest.get(camera_name)

    def size(self, camera_name: str) -> Size | None:
        """Return width and height of the images that are calibrated for."""
        event = self.of(camera_name)
        return (event.camera.width, event.camera.height) if event else None

    def problem(self, camera_name: str) -> str:
        """Return why the last one was refused; empty where none was."""
        return self._problems.get(camera_name, "")


def describe(camera: Camera) -> str:
    """Describe a calibration in one line."""
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    distortion = [round(value, 6) for value in camera.distortion.tolist()]
    return (
        f"{camera.model} {camera.width}x{camera.height} f {fx:.3f} {fy:.3f} c {cx:.3f} {cy:.3f} "
        f"d {distortion}"
    )
