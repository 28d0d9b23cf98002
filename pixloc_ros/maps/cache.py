"""The tiles of a map that are open: those in use, and in the background those around the position.

A view opens what it lacks at once, so what it shows never depends on what was opened ahead. A tile
is compared with its hash whenever it is opened; one that is missing or altered is refused, by
name, and the others serve on. Tiles of a map behind a URL are fetched into a cache on disk first
(maps/fetcher.py).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import TilesConfig
from pixloc_ros.errors import MapError
from pixloc_ros.maps.fetcher import TileFetcher, fetcher_of
from pixloc_ros.maps.source import NotFetched, TileSource
from pixloc_ros.maps.tiles import Tile, read_tile

log = logging.getLogger(__name__)

KEEP_SHARE = 1.5  # of prefetch_m: nearer tiles make no room for others that are opened ahead
NAMED = 3  # of the missing tiles, in messages
STEP_SHARE = 0.1  # of prefetch_m: a vehicle that moved less needs nothing new


class TileCache:
    """Open tiles by index, least recently used first, within a budget of bytes.

    boxes: (T, 4) x_min, y_min, x_max, y_max in metres of the tiles' keyframes.
    """

    def __init__(
        self,
        source: TileSource,
        boxes: NDArray[np.float64],
        config: TilesConfig,
        device: str = "cpu",
        verify: bool = True,
    ) -> None:
        self._source = source
        self._metadata = source.metadata
        self._boxes = boxes
        self._config = config
        self._device = device
        self._verify = verify
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Future[Tile]] = OrderedDict()
        self._refused: dict[int, MapError] = {}
        self._in_view: frozenset[int] = frozenset()
        self._bytes = 0
        self._position = np.full(2, np.inf)  # that was last looked around at
        self._ahead: Future[None] | None = None
        self._closed = False
        self._fetcher = fetcher_of(self._source, self._boxes, self._config)
        # Its thread ends with the last reference to the pool: with this object.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pixloc_tiles")

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens its own tiles."""
        names = ("_source", "_metadata", "_boxes", "_config", "_device", "_verify")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __len__(self) -> int:
        return len(self._metadata.tiles)

    @property
    def bytes(self) -> int:
        """Of the open tiles' files: what they take at most of the device, or of memory."""
        return self._bytes

    @property
    def opened(self) -> tuple[str, ...]:
        """Ids of the open tiles."""
        with self._lock:
            return tuple(self._metadata.tiles[index].id for index in self._open)

    @property
    def refused(self) -> dict[str, str]:
        """Why, by the id of the tile."""
        refused = dict(self._refused)
        return {self._metadata.tiles[index].id: str(error) for index, error in refused.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Of tiles that views lacked of late, behind a URL: why they are not here, by id."""
        missing = self._fetcher.missing if self._fetcher else {}
        return {self._metadata.tiles[index].id: why for index, why in missing.items()}

    @property
    def missing_note(self) -> str:
        """The first of these, in words; empty: none is missing."""
        missing = self.missing
        named = [f"{name} ({why})" for name, why in list(missing.items())[:NAMED]]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        return ", ".join(named) + more

    def missing_among(self, indices: Sequence[int]) -> tuple[str, ...]:
        """Ids of those tiles that are not refused: they are not here yet."""
        return tuple(self._metadata.tiles[i].id for i in indices if i not in self._refused)

    @property
    def fetcher(self) -> TileFetcher | None:
        """Of a map behind a URL."""
        return self._fetcher

    def never_wait(self) -> None:
        """From now on views do without tiles that would have to be fetched first.

        Otherwise they wait for them, so that what a view shows does not depend on the network.
        """
        if self._fetcher:
            self._fetcher.source.waits = False

    def check_sizes(self) -> None:
        """Refuse tiles that are missing or cut off, without opening any.

        Raises the MapError of the first one if no tile is left, and for a link out of the folder.
        """
        for index, entry in enumerate(self._metadata.tiles):
            if problem := self._source.problem(entry):
                self._refuse(index, MapError(problem))
        if len(self._refused) == len(self):
            raise self._refused[0]

    def tile(self, index: int) -> Tile:
        """Open a tile or take it from those that are open. Raises MapError if it is refused."""
        with self._lock:
            if index in self._refused:
                raise self._refused[index]
            future = self._open.get(index)
            if mine := future is None:
                self._make_room(index, self._in_view | {index})
                future = self._open[index] = Future()
                self._bytes += self._size(index)
            self._open.move_to_end(index)
        assert future is not None
        if mine:
            self._fulfil(index, future)
        return future.result()

    def take(self, indices: Sequence[int]) -> dict[int, Tile]:
        """Tiles for a view, without those refused or not here; held until the next call."""
        self._in_view = frozenset(indices)
        found = {}
        for index in indices:
            try:
                found[index] = self.tile(index)
            except NotFetched:
                if self._fetcher:
                    self._fetcher.demand(index)
            except MapError:  # logged when it was refused, and among `refused`
                continue
        return found

    def approach(self, position: NDArray[np.float64]) -> None:
        """Open the tiles around a position (2+,) in the background; returns at once."""
        if self._fetcher:
            self._fetcher.follow(position[:2])
        reach_m = self._config.prefetch_m
        moved_m = np.linalg.norm(position[:2] - self._position)
        busy = self._ahead is not None and not self._ahead.done()
        arrived = self._fetcher is not None and self._fetcher.news()
        still = not (moved_m > STEP_SHARE * reach_m or arrived)
        if len(self) == 1 or busy or self._closed or still:
            return
        self._position = position[:2].copy()
        self._ahead = self._pool.submit(self._open_around, self._position)

    def settle(self) -> None:
        """Wait until all that is opened ahead is open."""
        if self._ahead is not None:
            self._ahead.result()

    def sound(self) -> Iterator[tuple[int, Tile]]:
        """All tiles with their index, one after the other, without those that are refused.

        Keeps none open, and their rows are on the CPU.
        """
        for index in range(len(self)):
            try:
                yield index, self._read(index)
            except NotFetched:
                continue
            except MapError as error:
                self._refuse(index, error)

    def close(self) -> None:
        """Open nothing ahead any more, and let go of all tiles."""
        self._closed = True
        if self._fetcher:
            self._fetcher.close()
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            self._open.clear()
            self._bytes = 0

    def _open_around(self, position: NDArray[np.float64]) -> None:
        outside = np.maximum(self._boxes[:, :2] - position, position - self._boxes[:, 2:])
        distances_m = np.linalg.norm(np.maximum(outside, 0.0), axis=-1)
        reach_m = self._config.prefetch_m
        near = np.flatnonzero(distances_m <= reach_m)
        kept = frozenset(np.flatnonzero(distances_m <= KEEP_SHARE * reach_m).tolist())
        for index in near[np.argsort(distances_m[near], kind="stable")].tolist():
            if self._closed or not self._has_room(index, kept):
                return
            self._try(index)

    def _try(self, index: int) -> None:
        try:
            self.tile(index)
        except MapError:
            return

    def _has_room(self, index: int, kept: frozenset[int]) -> bool:
        with self._lock:
            if index in self._open or index in self._refused:
                return True
            return self._make_room(index, self._in_view | kept)

    def _make_room(self, index: int, kept: frozenset[int]) -> bool:
        """Let go of tiles that are not to be kept, until one more is within the budget."""
        budget = self._config.budget_mb * 1_000_000 - self._size(index)
        for other in [i for i, future in self._open.items() if i not in kept and future.done()]:
            if self._bytes <= budget:
                break
            self._drop(other)
        return self._bytes <= budget

    def _drop(self, index: int) -> None:
        del self._open[index]
        self._bytes -= self._size(index)

    def _size(self, index: int) -> int:
        return self._metadata.tiles[index].bytes

    def _fulfil(self, index: int, future: Future[Tile]) -> None:
        try:
            tile = self._read(index)
            future.set_result(tile if self._device == "cpu" else tile.to(self._device))
        except Exception as error:
            with self._lock:
                self._drop(index)
            if isinstance(error, MapError) and not isinstance(error, NotFetched):
                self._refuse(index, error)
            future.set_exception(error)

    def _read(self, index: int) -> Tile:
        return read_tile(self._source, self._metadata.tiles[index], self._verify)

    def _refuse(self, index: int, error: MapError) -> None:
        if index not in self._refused:
            log.warning("tile %s of the map is refused: %s", self._metadata.tiles[index].id, error)
        self._refused[index] = error
