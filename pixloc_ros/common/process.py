"""Make a program a good neighbour on its machine: idle threads sleep, and freed memory is kept."""

from __future__ import annotations

import ctypes
import os

# Libraries read these once, when they are loaded. By default their idle threads spin, so that new
# work starts at once; that takes time from other programs.
PASSIVE_WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # torch
    "OPENBLAS_THREAD_TIMEOUT": "4",  # numpy and scipy: 2^4 cycles instead of 2^26
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}
# Constants of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def prepare_process() -> None:
    """Set up this process as a good neighbour; call it first in a program's main function.

    It takes full effect only before torch, numpy and OpenCV are imported.
    """
    wait_passively()
    keep_freed_memory()


def wait_passively() -> None:
    """Let idle threads of libraries sleep, in this process and in those that it starts.

    A variable that the user has set is kept.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Return no freed memory to the system from now on.

    A network pass allocates and frees a hundred megabytes. By default each large block is mapped
    anew, zeroed page by page by the system, and unmapped, which takes a tenth of a frame's time on
    a CPU. With this, the process stays as large as its largest frame. Does nothing if libc is not
    glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_MAX, 0)  # take large blocks from the heap, too
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # never shrink the heap
    mallopt(_TOP_PAD, 64 * 2**20)  # grow it in large steps
    mallopt(_ARENA_MAX, 1)  # use a single heap: those of threads are too small
