"""How long work tells that it moves, without knowing of consoles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

# (items, description, total) -> the same items; `pixloc_ros.cli.progress.track` draws a bar.
Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


def silent(items: Iterable[Any], _description: str, _total: int) -> Iterable[Any]:
    """Tell nothing."""
    return items
