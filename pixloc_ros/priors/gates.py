"""Small tests that several kinds of priors share."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stamped = tuple[int, NDArray[np.float64]]  # stamp_ns, position in metres


def seconds(duration_ns: int) -> float:
    """Convert nanoseconds to seconds."""
    return duration_ns * 1e-9


class JumpGate:
    """Distinguishes an outlier from a stream that really moved.

    A position that could be reached only faster than `max_speed_mps` (plus `slack_m` of noise) is a
    "jump"; if the next position agrees with it, the stream has "moved" there.
    """

    def __init__(self) -> None:
        self._last: Stamped | None = None
        self._suspect: Stamped | None = None

    def clear(self) -> None:
        """Forget earlier positions."""
        self._last = self._suspect = None

    def check(
        self,
        stamp_ns: int,
        position_m: NDArray[np.float64],
        max_speed_mps: float,
        slack_m: float = 0.0,
    ) -> Literal["ok", "jump", "moved"]:
        """Judge the next position of the stream (any dimension, metres)."""
        current = (stamp_ns, np.asarray(position_m, np.float64))
        near = max_speed_mps, slack_m
        if self._last is None or _near(self._last, current, *near):
            verdict: Literal["ok", "moved"] = "ok"
        elif self._suspect is not None and _near(self._suspect, current, *near):
            verdict = "moved"
        else:
            self._suspect = current
            return "jump"
        self._last, self._suspect = current, None
        return verdict


def _near(before: Stamped, after: Stamped, max_speed_mps: float, slack_m: float) -> bool:
    reach_m = max_speed_mps * abs(seconds(after[0] - before[0])) + slack_m
    return bool(np.linalg.norm(after[1] - before[1]) <= reach_m)
