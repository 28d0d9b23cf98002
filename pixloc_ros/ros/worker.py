"""The one thread that works on frames and owns torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pixloc_ros.ros.latest_item import LatestItem

Item = TypeVar("Item")
_POLL_S = 0.1  # how soon a stop is noticed while no frame comes


class Worker(Generic[Item]):
    """Takes items from a mailbox and works on one after the other until stopped.

    An exception in `work` goes to `on_error` and the next item is taken.
    """

    def __init__(
        self,
        mailbox: LatestItem[Item],
        work: Callable[[Item], None],
        on_error: Callable[[Item, Exception], None],
    ) -> None:
        self._mailbox = mailbox
        self._work = work
        self._on_error = on_error
        self._stopping = threading.Event()
        # A daemon: a frame that takes for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="pixloc_worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.5) -> bool:
        """Finish the current item and end; False when that took too long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            item = self._mailbox.take(_POLL_S)
            if item is None or self._stopping.is_set():
                continue
            try:
                self._work(item)
            except Exception as error:
                self._on_error(item, error)
