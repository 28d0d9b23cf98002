"""Small tests that several kinds of priors share."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")


def seconds(duration_ns: int) -> float:
    return duration_ns * 1e-9


class JumpGate:
    """Tells an outlier from a stream that really moved.

    A position that could only be reached faster than `max_speed_mps` (plus `slack_m` of noise) is
    a "jump"; when the next one agrees with it, the stream has "moved" there.
    """

    def __init__(self, max_speed_mps: float, slack_m: float = 0.0) -> None:
        self.max_speed_mps = max_speed_mps
        self.slack_m = slack_m
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._suspect: tuple[int, NDArray[np.float64]] | None = None

    def clear(self) -> None:
        self._last = self._suspect = None

    def check(
        self, stamp_ns: int, position_m: NDArray[np.float64]
    ) -> Literal["ok", "jump", "moved"]:
        """Judge the next position of the stream (any dimension, metres)."""
        current = (stamp_ns, np.asarray(position_m, np.float64))
        if self._last is None or self._near(self._last, current):
            verdict: Literal["ok", "moved"] = "ok"
        elif self._suspect is not None and self._near(self._suspect, current):
            verdict = "moved"
        else:
            self._suspect = current
            return "jump"
        self._last, self._suspect = current, None
        return verdict

    def _near(
        self, before: tuple[int, NDArray[np.float64]], after: tuple[int, NDArray[np.float64]]
    ) -> bool:
        reach_m = self.max_speed_mps * abs(seconds(after[0] - before[0])) + self.slack_m
        return bool(np.linalg.norm(after[1] - before[1]) <= reach_m)


class StampFilter(Generic[Item]):
    """Tells one odd stamp from a clock that was set, or a bag that began anew.

    A message stamped more than `max_gap_s` from the one before is held back until the next one
    comes: when these two are near each other, time has really moved. `stray` counts the others.
    """

    def __init__(self, max_gap_s: float) -> None:
        self.max_gap_s = max_gap_s
        self.stray = 0
        self._last_ns: int | None = None
        self._held: tuple[int, Item] | None = None

    def clear(self) -> None:
        self._last_ns = self._held = None

    def admit(self, stamp_ns: int, item: Item) -> list[tuple[int, Item]]:
        """The messages to take now, in order of arrival; none while this one is held back."""
        held, self._held = self._held, None
        if self._last_ns is not None and not self._near(self._last_ns, stamp_ns):
            if held is None or not self._near(held[0], stamp_ns):
                self.stray += held is not None
                self._held = stamp_ns, item
                return []
            self._last_ns = stamp_ns
            return [held, (stamp_ns, item)]
        self.stray += held is not None
        self._last_ns = stamp_ns
        return [(stamp_ns, item)]

    def _near(self, before_ns: int, after_ns: int) -> bool:
        return abs(seconds(after_ns - before_ns)) <= self.max_gap_s
