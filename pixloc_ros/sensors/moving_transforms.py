"""Keep the /tf transforms of the last seconds, and join them with those of /tf_static."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import StampedTransform, TransformsEvent
from pixloc_ros.sensors.stamp_clock import Stamp, StampClock
from pixloc_ros.sensors.static_transforms import (
    MAX_FRAMES,
    StaticTransforms,
    chain,
    is_transform,
    normalized,
)

KEPT_NS = 10_000_000_000
MAX_GAP_S = 1.0  # between the stamps of one transform; see StampClock
AHEAD_NS = 500_000_000  # how long the newest transform remains valid
UNREAD = 5000  # messages kept undecoded; some seconds of a busy /tf


class MovingTransforms:
    """Does what tf2's buffer does, for chains with few moving frames and without threads.

    Messages stay undecoded until a transform is looked up, because /tf is busy.
    """

    def __init__(self, static: StaticTransforms) -> None:
        self._static = static
        self._histories: dict[str, dict[str, _History]] = {}  # by parent, then child
        self._parents: dict[str, set[str]] = {}  # by child
        self._unread: deque[TransformsEvent] = deque(maxlen=UNREAD)
        self._clock: StampClock[StampedTransform] = StampClock()

    def add_later(self, event: TransformsEvent) -> None:
        """Keep a message for the next `read`."""
        self._unread.append(event)

    def read(self, own_parent: str = "", own_child: str = "") -> list[BadMessage]:
        """Decode the messages kept; return why some could not be decoded.

        own_parent, own_child: frames of a transform to skip, because the localizer itself publishes
        it.
        """
        refused = []
        own = normalized(own_parent), normalized(own_child)
        while self._unread:
            try:
                transforms = self._unread.popleft().decode()
            except BadMessage as error:
                refused.append(error)
                continue
            for transform in transforms:
                if (normalized(transform.parent), normalized(transform.child)) != own:
                    self.admit(transform)
        return refused

    def admit(self, transform: StampedTransform) -> None:
        """Add a transform unless its stamp is odd; forget later ones if time has gone back."""
        if self._is_full(normalized(transform.child)):
            return
        stream = f"{normalized(transform.parent)} {normalized(transform.child)}"
        admission = self._clock.admit(stream, transform.stamp_ns, MAX_GAP_S, transform)
        if admission.went_back:
            self._forget_after(transform.stamp_ns)
        if admission.stamp is Stamp.PLAUSIBLE:
            for each in (*admission.released, transform):
                self.add(each)

    def add(self, transform: StampedTransform) -> bool:
        """Add a transform; return False if it is not rigid, names no frames, or is one too many."""
        parent, child = normalized(transform.parent), normalized(transform.child)
        if self._is_full(child) or not is_transform(parent, child, transform.T_parent_child):
            return False
        history = self._histories.setdefault(parent, {}).setdefault(child, _History())
        history.add(transform.stamp_ns, transform.T_parent_child)
        self._parents.setdefault(child, set()).add(parent)
        return True

    def _is_full(self, child: str) -> bool:
        return len(self._parents) >= MAX_FRAMES and child not in self._parents

    def pin(self, transform: StampedTransform) -> None:
        """Replace what is known of a transform by its value at one stamp."""
        parent, child = normalized(transform.parent), normalized(transform.child)
        self._histories.get(parent, {}).pop(child, None)
        self.add(transform)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix | None:
        """Return T_target_source (4, 4) at a stamp; None if no chain joins the frames then."""
        T_target_source = np.eye(4)
        for before, after in pairwise(self._chain(target, source) or ("", "")):
            T_before_after = self._between(before, after, stamp_ns)
            if T_before_after is None:
                return None
            T_target_source = T_target_source @ T_before_after
        return T_target_source

    def newest_ns(self, target: str, source: str) -> int | None:
        """Return the newest stamp at which all of a chain is known; None if nothing in it moves."""
        links = pairwise(self._chain(target, source) or ())
        histories = [self._history(*link) or self._history(*link[::-1]) for link in links]
        return min((h.newest_ns for h in histories if h is not None), default=None)

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames, sorted."""
        return tuple(sorted({*self._static.frames, *self._histories, *self._parents}))

    def _chain(self, target: str, source: str) -> tuple[str, ...] | None:
        return chain(normalized(target), normalized(source), self._around)

    def _around(self, frame: str) -> Iterable[str]:
        yield from self._static.around(frame)
        yield from self._histories.get(frame, ())
        yield from self._parents.get(frame, ())

    def _between(self, before: str, after: str, stamp_ns: int) -> Matrix | None:
        """Return the transform between neighbours; one that was ever on /tf counts as moving."""
        if (history := self._history(before, after)) is not None:
            return history.at(stamp_ns)
        if (history := self._history(after, before)) is not None:
            T_after_before = history.at(stamp_ns)
            return None if T_after_before is None else se3.inverse(T_after_before)
        return self._static.around(before).get(after)

    def _history(self, parent: str, child: str) -> _History | None:
        return self._histories.get(parent, {}).get(child)

    def _forget_after(self, stamp_ns: int) -> None:
        limit_ns = stamp_ns + MAX_GAP_S * 1e9
        for parent, children in self._histories.items():
            for child in [c for c, history in children.items() if history.newest_ns > limit_ns]:
                del children[child]
                self._parents[child].discard(parent)


class _History:
    """One transform over the last seconds."""

    def __init__(self) -> None:
        self._stamps_ns: list[int] = []
        self._T_of: dict[int, Matrix] = {}

    @property
    def newest_ns(self) -> int:
        return self._stamps_ns[-1]

    def add(self, stamp_ns: int, T: Matrix) -> None:
        if stamp_ns not in self._T_of:
            insort(self._stamps_ns, stamp_ns)
        self._T_of[stamp_ns] = np.asarray(T, np.float64)
        while self._stamps_ns[0] < self.newest_ns - KEPT_NS:
            del self._T_of[self._stamps_ns.pop(0)]

    def at(self, stamp_ns: int) -> Matrix | None:
        """Interpolate; None before the oldest stamp and long after the newest."""
        stamps_ns = self._stamps_ns
        if not stamps_ns[0] <= stamp_ns <= stamps_ns[-1] + AHEAD_NS:
            return None
        after_ns = stamps_ns[min(bisect_left(stamps_ns, stamp_ns), len(stamps_ns) - 1)]
        if stamp_ns >= after_ns:
            return self._T_of[after_ns]
        before_ns = stamps_ns[bisect_left(stamps_ns, stamp_ns) - 1]
        fraction = (stamp_ns - before_ns) / (after_ns - before_ns)
        return se3.interpolate(self._T_of[before_ns], self._T_of[after_ns], fraction)
