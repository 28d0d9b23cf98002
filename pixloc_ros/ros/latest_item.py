"""Hands the newest item from the executor's thread to the worker; older ones are dropped."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestItem(Generic[Item]):
    """Room for one item. Putting a second one before the first was taken replaces the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None

    def put(self, item: Item) -> bool:
        """Leave an item; True when one that nobody took was replaced."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
        return replaced

    def take(self, timeout_s: float) -> Item | None:
        """The item, waiting for one at most so long; None when none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None, timeout_s)
            item, self._item = self._item, None
        return item

    def clear(self) -> None:
        """Forget what is in it."""
        with self._changed:
            self._item = None
