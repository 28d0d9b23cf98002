"""Notices cameras whose image does not change although the vehicle moves."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Frame

LINES = 8  # every 8th line of an image tells it from others: noise is everywhere

# (4, 4) from the vehicle at the second stamp to it at the first; None where nothing tells.
Motion = Callable[[int, int], Matrix | None]


@dataclass(frozen=True, slots=True)
class _LastImage:
    """The last image of a camera, and how far the vehicle went while it did not change."""

    checksum: int
    stamp_ns: int
    path_m: float


class FrozenImages:
    """Compares each image of a camera with the one before, byte for byte.

    Without odometry nothing is frozen: a vehicle at rest may well see the same twice.
    """

    def __init__(self) -> None:
        self._last: dict[str, _LastImage] = {}

    def is_frozen(self, frame: Frame, motion: Motion, distance_m: float) -> bool:
        """Return whether the vehicle has moved by more than a distance during this image.

        To be asked for all frames, in order.
        """
        checksum = zlib.crc32(frame.image_rgb[::LINES].tobytes())
        last = self._last.get(frame.camera_name)
        path_m = 0.0
        if last is not None and last.checksum == checksum:
            step = motion(last.stamp_ns, frame.stamp_ns)
            path_m = last.path_m + (0.0 if step is None else float(np.linalg.norm(step[:3, 3])))
        self._last[frame.camera_name] = _LastImage(checksum, frame.stamp_ns, path_m)
        return path_m > distance_m
