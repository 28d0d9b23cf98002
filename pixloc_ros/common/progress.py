"""How long work tells that it moves, and what is kept of it, without knowing of consoles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Passes items on as they are worked on; `pixloc_ros.cli.progress.track` draws a bar."""

    def __call__(
        self, items: Iterable[Item], description: str, total: int, /
    ) -> Iterable[Item]: ...


def silent(items: Iterable[Item], _description: str, _total: int) -> Iterable[Item]:
    """Pass items on and tell nothing."""
    return items


@contextmanager
def keeping(note: str) -> Iterator[None]:
    """Add to whatever ends the block early what is kept, and how to go on.

    The command line prints it, after Ctrl-C too.
    """
    try:
        yield
    except BaseException as error:
        error.add_note(note)
        raise
