"""The last part of a drive as far as a wrong mounting of its camera shows in it."""

from __future__ import annotations

from collections import deque
from copy import copy

import numpy as np

from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.recorded_drive import RecordedOdometry
from pixloc_ros.priors.mounting import MIN_STEPS, LocalizedDrive, estimate_mounting
from pixloc_ros.priors.odometry import OdometryBuffer, OdometryReading
from pixloc_ros.types import Estimate

MAX_FRAMES = 600  # a minute at 10 Hz
MAX_READINGS = 20_000  # 6 MB; 200 s at 100 Hz
MIN_MOTION_M, MIN_MOTION_DEG = 0.1, 0.5  # between frames that are kept: a standstill tells nothing
MIN_READING_NS = 10_000_000  # between odometry that is kept
MARGIN_NS = 500_000_000  # of odometry before the first frame


class MountingRecord:
    """Localized frames of one camera with the odometry around them: the last ones, in bounds.

    `frames_taken` counts those that were ever kept.
    """

    def __init__(self) -> None:
        self.frames_taken = 0
        self._frames: deque[Estimate] = deque(maxlen=MAX_FRAMES)
        self._readings: deque[OdometryReading] = deque(maxlen=MAX_READINGS)
        self._T_base_cam: Matrix | None = None

    def take(self, estimate: Estimate, T_base_cam: Matrix, odometry: OdometryBuffer) -> None:
        """Keep a frame that was accepted, if it tells anything, and the odometry up to now.

        T_base_cam (4, 4): the mounting with which it was localized; with another one, and where
        time went back, the record begins anew.
        """
        if not estimate.ok or estimate.T_map_base is None or odometry.stamp_ns is None:
            return
        if not self._goes_on(estimate, T_base_cam, odometry.stamp_ns):
            self._frames.clear()
            self._readings.clear()
        self._T_base_cam = T_base_cam
        self._read(odometry)
        if not self._frames or _has_moved(self._frames[-1].T_map_base, estimate.T_map_base):
            self._frames.append(estimate)
            self.frames_taken += 1

    def copy(self) -> MountingRecord:
        """Return a record that stays as this one is now; quick."""
        same = copy(self)
        same._frames, same._readings = copy(self._frames), copy(self._readings)
        return same

    def complaint(self, pause_s: float = 0.0) -> str | None:
        """One line on a mounting or a clock that is surely off by more than matters, or "".

        None where there is too little to tell. Takes up to half a second of computing; pause_s: see
        `estimate_mounting`.
        """
        if len(self._frames) <= MIN_STEPS or len(self._readings) < 2 or self._T_base_cam is None:
            return None
        odometry = RecordedOdometry(
            stamps_ns=np.array([reading.stamp_ns for reading in self._readings], np.int64),
            T_odom_base=np.stack([reading.T_odom_base for reading in self._readings]),
            epoch=np.array([reading.epoch for reading in self._readings], np.int64),
        )
        try:
            drive = LocalizedDrive.of(self._frames, self._T_base_cam)
            return estimate_mounting(drive, odometry, pause_s).complaint()
        except (DataError, np.linalg.LinAlgError):  # too short, or odometry that is of no use
            return None

    def _goes_on(self, estimate: Estimate, T_base_cam: Matrix, odometry_ns: int) -> bool:
        if not self._frames or not self._readings or self._T_base_cam is None:
            return False
        later = estimate.stamp_ns > self._frames[-1].stamp_ns
        not_back = odometry_ns >= self._readings[-1].stamp_ns
        return later and not_back and np.array_equal(T_base_cam, self._T_base_cam)

    def _read(self, odometry: OdometryBuffer) -> None:
        newest_ns = self._readings[-1].stamp_ns if self._readings else -MIN_READING_NS
        for reading in odometry.since(newest_ns + MIN_READING_NS):
            if reading.stamp_ns >= newest_ns + MIN_READING_NS:
                self._readings.append(reading)
                newest_ns = reading.stamp_ns
        oldest_ns = self._frames[0].stamp_ns - MARGIN_NS if self._frames else 0
        while self._readings and self._readings[0].stamp_ns < oldest_ns:
            self._readings.popleft()


def _has_moved(T_before: Matrix | None, T_now: Matrix) -> bool:
    return T_before is None or se3.apart(T_before, T_now, MIN_MOTION_M, MIN_MOTION_DEG)
