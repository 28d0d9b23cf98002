"""Faults of the machine: a process that is killed, a disk that is full."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil

TOUCHING_FILES = ("os.", "open", "shutil.", "ctypes.call")  # audit events, as of sys.addaudithook
ONLY_READING = "os.listdir", "os.scandir"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
READ_ONLY = Path("/sys/kernel")  # for root too


def killed_at(step: int, work: Callable[[Path], None], path: Path) -> bool:
    """Whether a process that does the work was killed when it was to change files the Nth time.

    Step 0 is never reached: then the work is done in a process of its own.
    """
    child = os.fork()
    if child == 0:
        gc.disable()  # it would go through all that the tests hold, and copy it
        steps = count(1)

        def kill(event: str, arguments: tuple[Any, ...]) -> None:
            if changes_files(event, arguments) and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            work(path)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def changes_files(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event may announce more than a reading."""
    if not event.startswith(TOUCHING_FILES) or event in ONLY_READING:
        return False
    return event != "open" or bool(arguments[2] & WRITING)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to write more to a file, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def children() -> list[psutil.Process]:
    """All processes that this one started, and theirs."""
    return psutil.Process().children(recursive=True)


def cmdline(process: psutil.Process) -> str:
    """What a process was started with, or calls itself; nothing where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def stop_after(count: int) -> Callable[..., Iterator[Any]]:
    """Give a progress after so many items of which somebody presses Ctrl-C."""

    def progress(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        for i, item in enumerate(items):
            if i == count:
                raise KeyboardInterrupt
            yield item

    return progress


def kill_one_after(
    count: int, victims: Callable[[], list[psutil.Process]]
) -> Callable[..., Iterator[Any]]:
    """Give a progress that kills the first of `victims()` when so much is done."""

    def progress(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        for i, item in enumerate(items):
            yield item
            if i + 1 == count:
                os.kill(victims()[0].pid, signal.SIGKILL)

    return progress
