"""Run other programs on the same machine, as on a robot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

Neighbour = Literal["busy", "torch"]

_WORK = {"busy": ("", "pass"), "torch": ("import torch; a = torch.rand(512, 512)", "a @ a")}
# Ends by itself if its parent was killed.
_PROGRAM = """
import os
parent = os.getppid()
{preparation}
print(flush=True)
while os.getppid() == parent:
    {work}
"""


@contextmanager
def neighbours(count: int, kind: Neighbour = "busy") -> Iterator[None]:
    """Run `count` other programs meanwhile: busy loops, or torch with its own threads.

    They use their libraries' defaults, like anybody's programs, and are working when the context is
    entered.
    """
    preparation, work = _WORK[kind]
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_running(_PROGRAM.format(preparation=preparation, work=work)))
        yield


@contextmanager
def _running(program: str) -> Iterator[None]:
    # With an empty environment: this process's own settings must not reach them.
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={})
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
