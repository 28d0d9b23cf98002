"""How this process gets its memory: freed blocks stay, as the next frame needs the same ones."""

from __future__ import annotations

import ctypes

# Of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Give no freed memory back to the system, from now on; for the main function of a program.

    A network's pass takes and frees a hundred megabytes. By default each large block is mapped
    anew, cleared page by page by the system, and unmapped: a tenth of a frame's time on a CPU. The
    process stays as large as its largest frame made it. Nothing happens where libc is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_MAX, 0)  # large blocks from the heap too
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # which never shrinks
    mallopt(_TOP_PAD, 64 * 2**20)  # and grows in large steps
    mallopt(_ARENA_MAX, 1)  # one heap: those of threads are too small
