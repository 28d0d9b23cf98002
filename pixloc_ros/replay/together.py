"""Images of several cameras that were taken at about the same time, as one group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class Together(Generic[Item]):
    """Collects one item of each camera into a group by their stamps.

    A group is complete as soon as it has an item of each camera that also had one in the group
    before: a camera that is lost delays one group, not all that follow, and takes part again as
    soon as it delivers. An item that comes after its group is counted in `late` and not used.
    """

    cameras: Sequence[str]
    tolerance_s: float
    late: Counter[str] = field(default_factory=Counter)
    _open: dict[str, Item] = field(default_factory=dict)
    _open_ns: int = 0  # stamp of the first item of the open group
    _closed_ns: int | None = None  # stamp of the last closed group
    _awaited: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._awaited = set(self.cameras)

    def add(self, camera: str, stamp_ns: int, item: Item) -> list[Mapping[str, Item]]:
        """The groups that this item closes, oldest first: items by camera, in the order of cameras.

        Stamps that go back by more than the tolerance are late; after a jump of the clock begin
        anew with `clear`.
        """
        tolerance_ns = round(self.tolerance_s * 1e9)
        if self._closed_ns is not None and stamp_ns <= self._closed_ns + tolerance_ns:
            self.late[camera] += 1
            self._awaited.add(camera)
            return []
        closed = []
        if self._open and (abs(stamp_ns - self._open_ns) > tolerance_ns or camera in self._open):
            closed += self.flush()
        if not self._open:
            self._open_ns = stamp_ns
        self._open[camera] = item
        if self._awaited <= self._open.keys():
            closed += self.flush()
        return closed

    def flush(self) -> list[Mapping[str, Item]]:
        """Close the open group, if there is one, without waiting any longer."""
        if not self._open:
            return []
        group = {camera: self._open[camera] for camera in self.cameras if camera in self._open}
        self._awaited, self._open, self._closed_ns = set(group), {}, self._open_ns
        return [group]

    def clear(self) -> None:
        """Forget the open group and the stamps."""
        self._open, self._closed_ns, self._awaited = {}, None, set(self.cameras)
