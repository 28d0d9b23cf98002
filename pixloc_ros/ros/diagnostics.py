"""Measure rates over the latest events, and build the report on /diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from pixloc_ros.ros import conversions
from pixloc_ros.ros.state import State, StateReport

_WINDOW = 50  # events over which rates and latencies are computed

_LEVELS = {
    State.ERROR: DiagnosticStatus.ERROR,
    State.LOST: DiagnosticStatus.ERROR,
    State.TRACKING: DiagnosticStatus.OK,
}


class Rate:
    """The rate of the latest events, and percentiles of the values that came with them."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def add(self, now_s: float, value: float = 0.0) -> None:
        """Count an event at a time in seconds, with a value such as its latency."""
        self._events.append((now_s, value))

    @property
    def last_s(self) -> float | None:
        """Time of the newest event; None before the first."""
        return self._events[-1][0] if self._events else None

    def hz(self, now_s: float) -> float:
        """Return the events per second; the rate falls once they cease."""
        events = list(self._events)
        if len(events) < 2:
            return 0.0
        return (len(events) - 1) / max(events[-1][0] - events[0][0], now_s - events[-1][0], 1e-9)

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latest values; NaN without any."""
        values = [value for _, value in list(self._events)]
        return float(np.percentile(values, percent)) if values else float("nan")


def report(
    name: str, stamp_ns: int, verdict: StateReport, lines: Iterable[tuple[str, str]]
) -> DiagnosticArray:
    """Build one DiagnosticStatus with the state, and each line as a key and a value."""
    about = [("state", verdict.state.value), ("state reason", verdict.reason.value)]
    status = DiagnosticStatus(
        level=_LEVELS.get(verdict.state, DiagnosticStatus.WARN),
        name=f"{name}: localization",
        message=f"{verdict.state}: {verdict.message}",
        hardware_id=name,
        values=[KeyValue(key=key, value=value) for key, value in [*about, *lines]],
    )
    return DiagnosticArray(header=conversions.header(stamp_ns, ""), status=[status])
