"""How a program treats the machine it shares: idle threads sleep, and freed memory is kept."""

from __future__ import annotations

import ctypes
import os

# Libraries read these once, when they are loaded. By default their idle threads spin, so that work
# that comes soon begins at once; beside other programs they spin in the others' time.
PASSIVE_WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # torch
    "OPENBLAS_THREAD_TIMEOUT": "4",  # numpy and scipy: 2^4 cycles instead of 2^26
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}
# Of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def prepare_process() -> None:
    """Set this process up as a good neighbour; the first call of the main function of a program.

    It has its full effect only before torch, numpy and OpenCV are imported.
    """
    wait_passively()
    keep_freed_memory()


def wait_passively() -> None:
    """Let idle threads of the libraries sleep, in this process and those it starts.

    A variable that the user has set stays as it is.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Give no freed memory back to the system from now on.

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
