"""Programs under test: whoever waits for something of theirs hears at once that they have ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A process of a ROS domain, the file that gets what it says, and whether it may end well."""

    process: subprocess.Popen[bytes]
    log: Path
    domain: int
    may_end: bool

    def failure(self) -> str:
        """How it has ended, if it should not have; empty where it runs."""
        status = self.process.poll()
        if status is None or (status == 0 and self.may_end):
            return ""
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"a program has ended with status {status}: {self.log}", *lines])


_watched: list[Program] = []


@contextmanager
def watched(
    process: subprocess.Popen[bytes], log: Path, domain: int, may_end: bool = False
) -> Iterator[None]:
    """Let failure_in tell of the end of a process.

    may_end: whether an end with status 0 is as it should be.
    """
    program = Program(process, log, domain, may_end)
    _watched.append(program)
    try:
        yield
    finally:
        _watched.remove(program)


def failure_in(domain: int) -> str:
    """How a program of this domain has ended that should not have; empty while all run."""
    return next((said for p in _watched if p.domain == domain and (said := p.failure())), "")
