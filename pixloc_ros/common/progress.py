"""Report the progress of long work, and what is kept of it, without knowing about consoles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Passes items on while they are processed; `pixloc_ros.cli.progress.track` draws a bar."""

    def __call__(
        self, items: Iterable[Item], description: str, total: int, /
    ) -> Iterable[Item]: ...


def silent(items: Iterable[Item], _description: str, _total: int) -> Iterable[Item]:
    """Pass items on and report nothing."""
    return items


@contextmanager
def keeping(note: str) -> Iterator[None]:
    """Add a note to any exception that ends the block: what is kept, and how to continue.

    The command line prints it, also after Ctrl-C.
    """
    try:
        yield
    except BaseException as error:
        error.add_note(note)
        raise
