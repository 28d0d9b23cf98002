"""Frames of a later drive whose poses on the map were verified: what a map is updated with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pixloc_ros.common.image_files import Image
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix

SPACING_DEG = 10.0  # between frames that are used, where the vehicle turns


@dataclass(frozen=True, slots=True)
class VerifiedFrame:
    """One image with the pose that was found for it, and believed."""

    name: str
    stamp_ns: int
    camera: Camera
    T_map_base: Matrix
    T_base_cam: Matrix
    read_image: Callable[[], Image]

    @property
    def T_map_cam(self) -> Matrix:
        """(4, 4) where the camera was."""
        return self.T_map_base @ self.T_base_cam

    def moved(self, T_map_cam: Matrix) -> VerifiedFrame:
        """The same with its camera elsewhere."""
        return replace(self, T_map_base=T_map_cam @ se3.inverse(self.T_base_cam))


@dataclass(frozen=True, slots=True)
class DriveSession:
    """The verified frames of one drive, in the order of their stamps."""

    name: str
    frames: tuple[VerifiedFrame, ...]
    images: int  # of the drive, verified or not
    localized: bool = True  # on the map; otherwise something else has told the poses
    notes: tuple[str, ...] = ()  # what of the recording is not used, and why


def apart(first: Matrix, second: Matrix, spacing_m: float) -> bool:
    """Whether two poses (4, 4) are so far from each other, or turned by SPACING_DEG."""
    return se3.apart(first, second, spacing_m, SPACING_DEG)
