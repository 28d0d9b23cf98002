"""Notice cameras whose image does not change although the vehicle moves."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Frame

LINES = 8  # every 8th line is compared: noise makes any two images differ everywhere

# Pose (4, 4) of the vehicle at the second stamp in its frame at the first; None if unknown.
Motion = Callable[[int, int], Matrix | None]


@dataclass(frozen=True, slots=True)
class _LastImage:
    """The last image of a camera, and how far the vehicle moved while it stayed the same."""

    checksum: int
    stamp_ns: int
    path_m: float


class FrozenImages:
    """Compares each image of a camera with the one before, byte for byte.

    Without odometry no image counts as frozen: a vehicle at rest may see the same image twice.
    """

    def __init__(self) -> None:
        self._last: dict[str, _LastImage] = {}

    def is_frozen(self, frame: Frame, motion: Motion, distance_m: float) -> bool:
        """Return whether the vehicle moved more than distance_m while the image stayed the same.

        Call it for every frame, in order.
        """
        checksum = zlib.crc32(frame.image_rgb[::LINES].tobytes())
        last = self._last.get(frame.camera_name)
        path_m = 0.0
        if last is not None and last.checksum == checksum:
            step = motion(last.stamp_ns, frame.stamp_ns)
            path_m = last.path_m + (0.0 if step is None else float(np.linalg.norm(step[:3, 3])))
        self._last[frame.camera_name] = _LastImage(checksum, frame.stamp_ns, path_m)
        return path_m > distance_m
