"""How long work tells that it moves, without knowing of consoles."""

from __future__ import annotations

from collections.abc import Iterable
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
