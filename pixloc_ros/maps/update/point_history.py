"""How often drives looked through a point: points of what has left are retired in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.update.observations import FrameObservations

MAX_PRESENT_SHARE = 0.1  # of a session's frames that tell of a point it looked through
MIN_SESSIONS, MIN_FRAMES = 2, 3  # that looked through a point that is retired


@dataclass(frozen=True, slots=True)
class PointHistory:
    """Points (P,) that the last sessions that tell of them looked through."""

    point_id: NDArray[np.int32]  # ascending
    sessions: NDArray[np.int32]
    frames: NDArray[np.int32]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray]) -> PointHistory:
        """From arrays by name; empty where they are not there. Raises ValueError if they differ."""
        empty = np.zeros(0, np.int32)
        columns = [arrays.get(f"absent_{name}", empty) for name in cls.__slots__]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("points and counts of different lengths")
        return cls(*columns)

    def arrays(self) -> Arrays:
        """Arrays by name, as they are stored."""
        return {f"absent_{name}": getattr(self, name) for name in self.__slots__}

    def after(self, observed: Iterable[FrameObservations], id_end: int) -> PointHistory:
        """The history after one more session; id_end: above the ids of all points.

        A point that the session saw begins anew: what left and came back is there.
        """
        present, absent = (np.zeros(id_end, np.int32) for _ in range(2))
        for each in observed:
            present[each.point_ids] += each.present
            absent[each.point_ids] += each.absent
        looked_through = (absent > 0) & (present <= MAX_PRESENT_SHARE * (present + absent))
        sessions, frames = (np.zeros(id_end, np.int32) for _ in range(2))
        sessions[self.point_id], frames[self.point_id] = self.sessions, self.frames
        there = (present > 0) & ~looked_through
        sessions = np.where(there, 0, sessions + looked_through)
        frames = np.where(there, 0, frames + np.where(looked_through, absent, 0))
        ids = np.flatnonzero(sessions)
        return PointHistory(
            ids.astype(np.int32), *(a[ids].astype(np.int32) for a in (sessions, frames))
        )

    def gone(self) -> NDArray[np.int32]:
        """Ids (R,) of the points to be retired."""
        return self.point_id[(self.sessions >= MIN_SESSIONS) & (self.frames >= MIN_FRAMES)]

    def without(self, ids: NDArray[np.int32]) -> PointHistory:
        """The history of the other points."""
        kept = ~np.isin(self.point_id, ids)
        return PointHistory(self.point_id[kept], self.sessions[kept], self.frames[kept])
