"""Counters of everything that came, was dropped or refused, and their report."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from pixloc_ros.ros import conversions
from pixloc_ros.ros.state import State, StateReport

_WINDOW = 50  # frames that rates and latencies are taken over

_LEVELS = {
    State.ERROR: DiagnosticStatus.ERROR,
    State.LOST: DiagnosticStatus.ERROR,
    State.TRACKING: DiagnosticStatus.OK,
}


class Counters:
    """Counts by name, from several threads, and the last line about each thing gone wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last: dict[str, str] = {}

    def add(self, name: str, message: str = "") -> int:
        """Count once more; the new count."""
        with self._lock:
            self._counts[name] += 1
            if message:
                self._last[name] = message
            return self._counts[name]

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def lines(self) -> list[tuple[str, str]]:
        """Name and count, with the last message where there is one."""
        with self._lock:
            counts = sorted(self._counts.items())
            return [
                (name, f"{count}: {self._last[name]}" if name in self._last else str(count))
                for name, count in counts
            ]


class Rate:
    """Rate of events and mean of the values that came with them, over the last ones."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def add(self, now_s: float, value: float = 0.0) -> None:
        self._events.append((now_s, value))

    @property
    def last_s(self) -> float | None:
        """Time of the newest event."""
        return self._events[-1][0] if self._events else None

    def hz(self, now_s: float) -> float:
        """Events per second; falls when they cease."""
        events = list(self._events)
        if len(events) < 2:
            return 0.0
        return (len(events) - 1) / max(events[-1][0] - events[0][0], now_s - events[-1][0], 1e-9)

    def percentile(self, percent: float) -> float:
        values = [value for _, value in list(self._events)]
        return float(np.percentile(values, percent)) if values else float("nan")


def report(
    name: str, stamp_ns: int, verdict: StateReport, lines: Iterable[tuple[str, str]]
) -> DiagnosticArray:
    """One DiagnosticStatus with the state and all lines as key and value."""
    about = [("state", verdict.state.value), ("state reason", verdict.reason.value)]
    status = DiagnosticStatus(
        level=_LEVELS.get(verdict.state, DiagnosticStatus.WARN),
        name=f"{name}: localization",
        message=f"{verdict.state}: {verdict.message}",
        hardware_id=name,
        values=[KeyValue(key=key, value=value) for key, value in [*about, *lines]],
    )
    return DiagnosticArray(header=conversions.header(stamp_ns, ""), status=[status])
