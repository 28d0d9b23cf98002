"""Measure the time of each stage of a frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """`with watch("features"): ...` adds the wall time of the block to timing_ms["features"]."""

    def __init__(self) -> None:
        self.timing_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        elapsed_ms = 1e3 * (time.perf_counter() - start)
        self.timing_ms[stage] = self.timing_ms.get(stage, 0.0) + elapsed_ms
