"""What a target is, and what counts as a fault of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from helpers.limits import bounded
from pixloc_ros.errors import PixlocError

MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """One boundary: how to make what a stranger gives, and who takes it.

    read: takes a case and an empty folder, and returns, or refuses with a PixlocError. Anything
    else that it raises is a fault, and so are hangs and gigabytes.
    quick: cases with every run of the tests.
    """

    name: str
    cases: Callable[[], SearchStrategy[Any]]
    read: Callable[[Any, Path], object]
    quick: int = 100


def attempt(target: Target, case: Any, folder: Path) -> bool:
    """Whether a case was accepted; raises what a boundary must not let through."""
    with bounded():
        try:
            target.read(case, folder)
        except PixlocError as error:
            text = str(error)
            assert text and text.isprintable() and len(text) <= MAX_MESSAGE, text[:2000]
            return False
    return True


def file_target(
    name: str,
    file_name: str,
    cases: Callable[[], SearchStrategy[bytes]],
    take: Callable[[Path], object],
    quick: int = 100,
) -> Target:
    """A target that reads one file."""

    def read(content: bytes, folder: Path) -> None:
        path = folder / file_name
        path.write_bytes(content)
        take(path)

    return Target(name, cases, read, quick)
