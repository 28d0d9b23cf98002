"""From what several cameras saw to frames of one moment, without those that hang."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.types import Estimate, Frame, Reason, Status

LINES = 8  # every 8th line of an image tells it from others: noise is everywhere


@dataclass(frozen=True, slots=True)
class _Still:
    """The last image of a camera, and how far the vehicle went while it did not change."""

    checksum: int
    stamp_ns: int
    path_m: float


class FreezeWatch:
    """Notices cameras that repeat one image, byte for byte, while odometry says the vehicle moves.

    Without odometry nothing is frozen: a vehicle at rest may well see the same twice.
    """

    def __init__(self, motion_m: float) -> None:
        self._motion_m = motion_m
        self._last: dict[str, _Still] = {}

    def is_frozen(self, frame: Frame, tracker: PoseTracker) -> bool:
        """Whether this frame is not of its stamp. To be asked for all frames, in order."""
        checksum = zlib.crc32(frame.image_rgb[::LINES].tobytes())
        last = self._last.get(frame.camera_name)
        path_m = 0.0
        if last is not None and last.checksum == checksum:
            step = tracker.motion(last.stamp_ns, frame.stamp_ns)
            path_m = last.path_m + (0.0 if step is None else float(np.linalg.norm(step[:3, 3])))
        self._last[frame.camera_name] = _Still(checksum, frame.stamp_ns, path_m)
        return path_m > self._motion_m

    def usable(self, frames: Sequence[Frame], tracker: PoseTracker) -> list[Frame]:
        """Those that are not frozen, with extrinsics as of the stamp of the first one."""
        awake = [frame for frame in frames if not self.is_frozen(frame, tracker)]
        return [_at(frame, awake[0].stamp_ns, tracker) for frame in awake]


def frozen(frame: Frame) -> Estimate:
    """The verdict where no camera shows the moment."""
    message = "the image has not changed although the vehicle moves"
    reason = Reason.FROZEN_IMAGE
    return Estimate(Status.FAILED, reason, message, frame.stamp_ns, frame.name)


def _at(frame: Frame, stamp_ns: int, tracker: PoseTracker) -> Frame:
    """The frame as if taken at a stamp, by odometry; where that is silent nothing has moved."""
    T_then_now = tracker.motion(stamp_ns, frame.stamp_ns)
    if frame.stamp_ns == stamp_ns or T_then_now is None:
        return frame
    return replace(frame, T_base_cam=T_then_now @ frame.T_base_cam, stamp_ns=stamp_ns)
