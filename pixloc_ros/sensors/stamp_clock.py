"""Tell a single odd stamp from a clock that was set, and from a recording that began again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Stamp(Enum):
    """How a stamp compares with those before it."""

    PLAUSIBLE = "plausible"  # also if it confirms that time has moved
    AHEAD = "ahead"  # far ahead, and nothing confirms that time has moved there
    BEHIND = "behind"  # far behind, likewise


@dataclass(frozen=True, slots=True)
class Admission(Generic[Item]):
    """The clock's verdict on one stamp."""

    stamp: Stamp
    released: tuple[Item, ...] = ()  # items held back before whose stamps are confirmed now
    went_back: bool = False  # time has moved back to this stamp


@dataclass(frozen=True, slots=True)
class _Suspect(Generic[Item]):
    """A stamp that nothing confirms yet, and the item that was held back with it."""

    stamp_ns: int
    item: Item | None


class StampClock(Generic[Item]):
    """Follows the stamps of several streams of messages.

    A stamp farther than `max_gap_s` from the last one of its stream is not trusted by itself. Two
    things confirm that time has moved there: the next stamp of the stream, if it continues from
    there, or a stamp of another stream that has jumped to the same time. If time has moved back,
    all streams begin again.

    on_stray: called with the stream whose odd stamp was not confirmed.
    """

    def __init__(self, on_stray: Callable[[str], None] = lambda stream: None) -> None:
        self._on_stray = on_stray
        self._newest_ns: dict[str, int] = {}  # newest trusted stamp by stream
        self._suspects: dict[str, _Suspect[Item]] = {}

    @property
    def newest_ns(self) -> int | None:
        """The newest trusted stamp of all streams."""
        return max(self._newest_ns.values(), default=None)

    def newest_of(self, stream: str) -> int | None:
        """Return the newest trusted stamp of a stream."""
        return self._newest_ns.get(stream)

    def clear(self) -> None:
        """Forget all stamps."""
        self._newest_ns.clear()
        self._suspects.clear()

    def admit(
        self, stream: str, stamp_ns: int, max_gap_s: float, item: Item | None = None
    ) -> Admission[Item]:
        """Judge the next stamp of a stream; `item` is held back until its stamp is confirmed."""
        gap_ns = round(max_gap_s * 1e9)
        newest_ns = self._newest_ns.get(stream)
        if self._is_plausible(newest_ns, stamp_ns, gap_ns):
            if self._suspects.pop(stream, None) is not None:
                self._on_stray(stream)
            self._newest_ns[stream] = max(stamp_ns, newest_ns or stamp_ns)
            return Admission(Stamp.PLAUSIBLE)
        assert newest_ns is not None
        if self._is_confirmed(stream, newest_ns, stamp_ns, gap_ns):
            return self._move(stream, stamp_ns, gap_ns)
        if stream in self._suspects:
            self._on_stray(stream)
        self._suspects[stream] = _Suspect(stamp_ns, item)
        return Admission(Stamp.AHEAD if stamp_ns > newest_ns else Stamp.BEHIND)

    def _is_plausible(self, newest_ns: int | None, stamp_ns: int, gap_ns: int) -> bool:
        """Return whether a stamp is near the last of its stream or, after a pause, of another."""
        if newest_ns is None or abs(stamp_ns - newest_ns) <= gap_ns:
            return True
        others = self._newest_ns.values()
        return stamp_ns > newest_ns and any(abs(stamp_ns - ns) <= gap_ns for ns in others)

    def _is_confirmed(self, stream: str, newest_ns: int, stamp_ns: int, gap_ns: int) -> bool:
        """Return whether a suspect is near, or this stream's own suspect is continued."""
        suspects = self._suspects.values()
        if any(abs(suspect.stamp_ns - stamp_ns) <= gap_ns for suspect in suspects):
            return True
        own = self._suspects.get(stream)
        if own is None or stamp_ns <= own.stamp_ns:
            return False
        return (own.stamp_ns > newest_ns) == (stamp_ns > newest_ns)

    def _move(self, stream: str, stamp_ns: int, gap_ns: int) -> Admission[Item]:
        """Accept that time has moved to a stamp."""
        went_back = stamp_ns < self._newest_ns[stream]
        if went_back:
            newest = self._newest_ns.items()
            self._newest_ns = {s: ns for s, ns in newest if ns <= stamp_ns + gap_ns}
        released = []
        for suspected, suspect in list(self._suspects.items()):
            if suspected == stream or abs(suspect.stamp_ns - stamp_ns) <= gap_ns:
                del self._suspects[suspected]
                self._newest_ns[suspected] = suspect.stamp_ns
                if suspect.item is not None:
                    released.append(suspect.item)
        self._newest_ns[stream] = stamp_ns
        return Admission(Stamp.PLAUSIBLE, tuple(released), went_back)
