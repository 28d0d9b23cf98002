"""Other programs that run on the same machine, as they do on a robot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

Neighbour = Literal["busy", "torch"]

_WORK = {"busy": ("", "pass"), "torch": ("import torch; a = torch.rand(512, 512)", "a @ a")}
# Ends by itself where its parent was killed.
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
    """Run so many other programs meanwhile: busy loops, or torch with threads of its own.

    They run with the defaults of their libraries, as programs of others do, and are working when
    this begins.
    """
    preparation, work = _WORK[kind]
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_running(_PROGRAM.format(preparation=preparation, work=work)))
        yield


@contextmanager
def _running(program: str) -> Iterator[None]:
    # Without variables: what this process has set for itself is not for them.
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={})
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
