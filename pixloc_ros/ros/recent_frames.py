"""The verdicts on the latest frames, from which the state of the node is judged."""

from __future__ import annotations

import threading
from collections import deque

from pixloc_ros.ros.diagnostics import Rate
from pixloc_ros.session import Answer
from pixloc_ros.types import Estimate

_SHARE_OF = 20  # frames over which the share of accepted ones is computed


class RecentFrames:
    """Collects verdicts. Written by the worker, read by the executor's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._verdicts: deque[bool] = deque(maxlen=_SHARE_OF)
        self.last: Estimate | None = None
        self.cameras_missing: tuple[str, ...] = ()  # of a rig, in the latest frame
        self.accepted_s: float | None = None  # time.perf_counter() of the last accepted pose
        self.latency_ms = Rate()

    def add(self, answer: Answer, now_s: float, latency_ms: float) -> bool:
        """Record a verdict; return False if it predates the last `forget`."""
        self.latency_ms.add(now_s, latency_ms)
        with self._lock:
            if answer.generation < self._generation:
                return False
            self.last, self.cameras_missing = answer.estimate, answer.cameras_missing
            if answer.estimate.ok:
                self.accepted_s = now_s
            if self.accepted_s is not None:
                self._verdicts.append(answer.estimate.ok)
        return True

    def forget(self, generation: int) -> None:
        """Forget all verdicts; count only answers of this generation of the tracker or later."""
        with self._lock:
            self._generation = generation
            self.last = self.accepted_s = None
            self._verdicts.clear()

    @property
    def accepted_share(self) -> float:
        """Share of accepted frames among the latest, counted from the first accepted one."""
        verdicts = list(self._verdicts)
        return sum(verdicts) / len(verdicts) if verdicts else 1.0
