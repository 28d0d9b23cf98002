"""Group the images that several cameras took at about the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class CameraSynchronizer(Generic[Item]):
    """Collects one item per camera into a group, by their stamps.

    A group is complete once it has an item of each camera that took part in the group before. So a
    camera that fails delays one group, not all later ones, and it takes part again as soon as it
    delivers. An item that comes after its group was closed is counted in `late` and not used. If
    there is only one camera, each of its items is a group, whatever the stamp.
    """

    cameras: Sequence[str]
    tolerance_s: float
    late: Counter[str] = field(default_factory=Counter)
    _open: dict[str, tuple[int, Item]] = field(default_factory=dict)  # stamp and item by camera
    _closed: dict[str, int] = field(default_factory=dict)  # stamps of the last group, by camera
    _awaited: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._awaited = set(self.cameras)

    def add(self, camera: str, stamp_ns: int, item: Item) -> list[Mapping[str, Item]]:
        """Add an item; return the groups that it closes, oldest first, as items by camera.

        Items are in the order of `cameras`. Stamps that go back count as late: after a jump of the
        clock, call `clear`.
        """
        if len(self.cameras) == 1:
            return [{camera: item}]
        if self._is_late(camera, stamp_ns):
            self.late[camera] += 1
            self._awaited.add(camera)
            return []
        closed = []
        if camera in self._open or (self._open and not self._belongs(stamp_ns)):
            closed += self.flush()
        self._open[camera] = stamp_ns, item
        if self._awaited <= self._open.keys():
            closed += self.flush()
        return closed

    def flush(self) -> list[Mapping[str, Item]]:
        """Close the open group, if there is one, without further waiting."""
        if not self._open:
            return []
        group = {camera: self._open[camera][1] for camera in self.cameras if camera in self._open}
        self._closed = {camera: stamp_ns for camera, (stamp_ns, _) in self._open.items()}
        self._awaited, self._open = set(group), {}
        return [group]

    def clear(self) -> None:
        """Forget the open group and the stamps."""
        self._open, self._closed, self._awaited = {}, {}, set(self.cameras)

    def _belongs(self, stamp_ns: int) -> bool:
        """Return whether a stamp fits the first item of the open group."""
        first_ns, _ = next(iter(self._open.values()))
        return abs(stamp_ns - first_ns) <= self._tolerance_ns

    def _is_late(self, camera: str, stamp_ns: int) -> bool:
        if not self._closed:
            return False
        if camera in self._closed:  # its next item may come sooner than the tolerance
            return stamp_ns <= self._closed[camera]
        return stamp_ns <= next(iter(self._closed.values())) + self._tolerance_ns

    @property
    def _tolerance_ns(self) -> int:
        return round(self.tolerance_s * 1e9)
