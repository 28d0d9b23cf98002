"""Fetches tiles of a map behind a URL into the cache on disk, in a thread of its own.

First those that a view lacked, then those along the way, before they are needed. What cannot be
had is tried again, less and less often; meanwhile the others are fetched.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import TilesConfig
from pixloc_ros.errors import MapError
from pixloc_ros.maps.remote import RemoteSource
from pixloc_ros.maps.source import TileSource

log = logging.getLogger(__name__)

DEMAND_S = 10.0  # for so long a view's demand counts
SAME_DRIVE_M = 50.0  # a position farther from the last one tells no direction
STEP_M = 5.0  # a vehicle that moved less has the same way before it
AHEAD_SHARE = 0.5  # of the cache: what is fetched ahead must not push out what is in use


@dataclass(slots=True)
class _Failure:
    """Why a tile could not be had, and when to try again."""

    why: str
    retry_s: float  # time.monotonic
    count: int  # in a row


def fetcher_of(
    source: TileSource, boxes: NDArray[np.float64], config: TilesConfig
) -> TileFetcher | None:
    """The fetcher of a map behind a URL; None of one in a folder."""
    return TileFetcher(source, boxes, config) if isinstance(source, RemoteSource) else None


class TileFetcher:
    """Tiles by index. boxes: (T, 4) x_min, y_min, x_max, y_max in metres."""

    def __init__(
        self, source: RemoteSource, boxes: NDArray[np.float64], config: TilesConfig
    ) -> None:
        self.source = source
        self.fetched = 0  # tiles, since the map was opened
        self._boxes, self._config = boxes, config
        self._files = [entry.file for entry in source.metadata.tiles]
        self._bytes = np.array([entry.bytes for entry in source.metadata.tiles], dtype=np.int64)
        self._lock = threading.Lock()
        self._demanded: dict[int, float] = {}  # when, by time.monotonic
        self._ahead: list[int] = []
        self._failures: dict[int, _Failure] = {}
        self._position: NDArray[np.float64] | None = None
        self._direction = np.zeros(2)  # unit, or zero where it is not known
        self._thread: threading.Thread | None = None
        self._news = self._closed = False

    @property
    def missing(self) -> dict[int, str]:
        """Why tiles that views lacked of late are not here."""
        with self._lock:
            demanded = self._still_demanded()
            failures = {i: self._failures[i].why for i in demanded if i in self._failures}
        return {
            index: failures.get(index, "not fetched yet")
            for index in demanded
            if not self.source.has(self._files[index])
        }

    def demand(self, index: int) -> None:
        """A view lacks this tile: it is the next to be fetched."""
        with self._lock:
            self._demanded[index] = time.monotonic()
        self._wake()

    def follow(self, position: NDArray[np.float64]) -> None:
        """Fetch what lies around a position (2,), first what is on the way."""
        self._move(position)
        self._wake()

    def news(self) -> bool:
        """Whether a tile has come since the last call."""
        news, self._news = self._news, False
        return news

    def settle(self) -> None:
        """Wait until nothing is left to be tried now."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Fetch nothing any more, but the file that is under way."""
        self._closed = True

    def _move(self, position: NDArray[np.float64]) -> None:
        before = self._position
        if before is not None:
            moved = position - before
            distance_m = float(np.linalg.norm(moved))
            if distance_m < STEP_M:
                return
            near = distance_m < SAME_DRIVE_M
            self._direction = moved / distance_m if near else np.zeros(2)
        self._position = position.copy()
        ahead = self._on_the_way(self._position)
        lacking = [index for index in ahead if not self.source.has(self._files[index])]
        with self._lock:
            self._ahead = lacking  # so that a view that moves nothing on looks at no file

    def _on_the_way(self, position: NDArray[np.float64]) -> list[int]:
        """Tiles within reach, those first that a vehicle going on in its direction meets first."""
        nearest = np.clip(position, self._boxes[:, :2], self._boxes[:, 2:])
        towards = nearest - position
        distances_m = np.linalg.norm(towards, axis=-1)
        within = np.flatnonzero(distances_m <= self._config.fetch_ahead_m)
        along_m = towards[within] @ self._direction
        detour_m = 2 * distances_m[within] - along_m  # once as far ahead, three times behind
        order = within[np.argsort(detour_m, kind="stable")]
        room = AHEAD_SHARE * self.source.cache.budget_bytes
        return order[np.cumsum(self._bytes[order]) <= room].tolist()

    def _wake(self) -> None:
        """Start the thread where there is something to do, and none at work."""
        with self._lock:
            if self._closed or self._thread is not None or self._next() is None:
                return
            self._thread = threading.Thread(target=self._work, name="pixloc_fetch", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                index = None if self._closed else self._next()
                if index is None:
                    self._thread = None
                    return
            try:
                self.source.fetch(self._files[index])
            except Exception as error:  # of any kind: the thread and the others go on
                self._failed(index, error)
            else:
                self._arrived(index)

    def _next(self) -> int | None:
        """The tile to try now, if any. Called with the lock held."""
        now_s = time.monotonic()
        for index in (*self._still_demanded(), *self._ahead):
            failure = self._failures.get(index)
            due = failure is None or failure.retry_s <= now_s
            if due and not self.source.has(self._files[index]):
                return index
        return None

    def _still_demanded(self) -> list[int]:
        """The demands that count, the first one first. Called with the lock held."""
        oldest_s = time.monotonic() - DEMAND_S
        self._demanded = {i: at_s for i, at_s in self._demanded.items() if at_s >= oldest_s}
        return list(self._demanded)

    def _failed(self, index: int, error: Exception) -> None:
        why = str(error) if isinstance(error, MapError) else f"{type(error).__name__}: {error}"
        with self._lock:
            before = self._failures.get(index)
            count = before.count + 1 if before else 1
            pause_s = self.source.retries.pause_s(count)
            self._failures[index] = _Failure(why, time.monotonic() + pause_s, count)
        if before is None or before.why != why:
            log.warning("a tile of the map cannot be fetched: %s", why)

    def _arrived(self, index: int) -> None:
        with self._lock:
            self._failures.pop(index, None)
            self.fetched += 1
            self._news = True
