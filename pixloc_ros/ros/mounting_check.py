"""Check from time to time, in the background, whether the camera sits where its extrinsics say."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from pixloc_ros.priors.mounting_record import MountingRecord

MOUNTING = "mounting by the drive"  # its key in the diagnostics
UNKNOWN, FINE = "not known yet", "no complaint"

_FIRST_FRAMES, _MAX_FRAMES_BETWEEN = 25, 300  # between two checks: doubles from first to last
_NICENESS = 10  # of the thread: frames come first
_PAUSE_S = 0.005  # for the same reason: a thread that never rests keeps the interpreter to itself


class MountingCheck:
    """Judges a copy of the session's record in its own thread, one check at a time.

    on_finding: called with a complaint when there was none before.
    """

    def __init__(self, on_finding: Callable[[str], None]) -> None:
        self.finding = UNKNOWN  # of the last check that had enough evidence
        self._on_finding = on_finding
        self._next = _FIRST_FRAMES
        self._thread: threading.Thread | None = None

    def consider(self, record: MountingRecord) -> None:
        """Start a check if there are enough new frames. Call it with the session locked."""
        running = self._thread is not None and self._thread.is_alive()
        if running or record.frames_taken < self._next:
            return
        self._next = record.frames_taken + min(record.frames_taken, _MAX_FRAMES_BETWEEN)
        self._thread = threading.Thread(target=self._judge, args=[record.copy()], daemon=True)
        self._thread.start()

    def _judge(self, record: MountingRecord) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        complaint = record.complaint(_PAUSE_S)
        if complaint is None:
            return
        before, self.finding = self.finding, complaint or FINE
        if complaint and before in (UNKNOWN, FINE):
            self._on_finding(complaint)
