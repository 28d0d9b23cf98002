"""Blocks that must not take more time or memory than their input is worth."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

MAX_CPU_S = 10.0
MAX_MEMORY_KB = 2_000_000
WHOSE = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN


class Excess(AssertionError):
    """More time or memory than any input of this size is worth."""


@contextmanager
def bounded(max_cpu_s: float = MAX_CPU_S, max_memory_kb: int = MAX_MEMORY_KB) -> Iterator[None]:
    """Raise Excess for a block that takes more time of the processor, or more new memory."""
    begin_s, begin_kb = _spent_s(), _peak_kb()
    yield
    spent_s, grown_kb = _spent_s() - begin_s, _peak_kb() - begin_kb
    if spent_s > max_cpu_s:
        raise Excess(f"{spent_s:.1f} s of the processor")
    if grown_kb > max_memory_kb:
        raise Excess(f"{grown_kb / 1e6:.1f} GB of memory")


def _spent_s() -> float:
    """Time of the processor, with that of the processes it has started and that have ended."""
    own, children = (resource.getrusage(who) for who in WHOSE)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_kb() -> int:
    """Of this process, or of the largest one that it has started."""
    return max(resource.getrusage(who).ru_maxrss for who in WHOSE)
