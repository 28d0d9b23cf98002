"""The pose tracker behind a lock: fed by callbacks, asked by the worker and the TF timer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pixloc_ros.priors.tracker import PoseTracker


class SharedTracker:
    """One tracker for several threads."""

    def __init__(self, tracker: PoseTracker) -> None:
        self._tracker = tracker
        self._changed = threading.Condition()

    @contextmanager
    def locked(self) -> Iterator[PoseTracker]:
        """The tracker, for this thread alone."""
        with self._changed:
            yield self._tracker
            self._changed.notify_all()

    def wait_ready(self, stamp_ns: int, timeout_s: float) -> bool:
        """Wait for odometry at the stamp; False when it did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._tracker.ready(stamp_ns), timeout_s)
