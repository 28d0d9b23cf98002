"""One attempt to find the vehicle anew: begun by a service, ended by a frame or by the clock."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from rclpy.task import Future

from pixloc_ros.types import Estimate, Reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. The code is a reason of a frame, or one of the service's own."""

    code: str
    message: str
    estimate: Estimate | None = None  # the one accepted, or the last that was not
    frames: int = 0

    @property
    def found(self) -> bool:
        return self.estimate is not None and self.estimate.ok


class Relocalization:
    """Watches frames until one is accepted. Fed by the worker, awaited in the executor."""

    def __init__(self, timeout_s: float) -> None:
        self.future: Future = Future()
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s
        self._last: Estimate | None = None
        self._frames = 0

    @property
    def pending(self) -> bool:
        return not self.future.done()

    def watch(self, estimate: Estimate) -> None:
        """Take the verdict on a frame; one that was begun before the attempt does not count."""
        with self._lock:
            if estimate.reason is Reason.SUPERSEDED:
                return
            self._last, self._frames = estimate, self._frames + 1
            if estimate.ok:
                self._end(Outcome(Reason.OK, estimate.message, estimate, self._frames))

    def expire(self) -> None:
        """Give up once the time is over."""
        with self._lock:
            if time.monotonic() < self._end_s:
                return
            waited = f"within {self._timeout_s:g} s"
            if self._last is None:
                self._end(Outcome("no_image", f"no image came {waited}"))
            else:
                message = f"no frame accepted {waited}; the last: {self._last.message}"
                self._end(Outcome(self._last.reason, message, self._last, self._frames))

    def interrupt(self, why: str) -> None:
        """End because the node stops working on frames."""
        with self._lock:
            self._end(Outcome("interrupted", why, None, self._frames))

    def _end(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.future.set_result(outcome)
