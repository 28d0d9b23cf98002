"""Look up fixed transforms between frames, as published on /tf_static."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

MAX_FRAMES = 10_000  # more than any vehicle has; stops names that are invented anew per message


class StaticTransforms:
    """A graph of rigid transforms; of several between the same two frames, the newest counts."""

    def __init__(self) -> None:
        self._neighbours: dict[str, dict[str, Matrix]] = {}

    def add(self, parent: str, child: str, T_parent_child: Matrix) -> bool:
        """Add a transform; return False if it is not rigid, names no frames, or is one too many."""
        parent, child = normalized(parent), normalized(child)
        full = len(self._neighbours) >= MAX_FRAMES and child not in self._neighbours
        if full or not is_transform(parent, child, T_parent_child):
            return False
        T = np.asarray(T_parent_child, dtype=np.float64)
        self._neighbours.setdefault(parent, {})[child] = T
        self._neighbours.setdefault(child, {})[parent] = se3.inverse(T)
        return True

    def lookup(self, target: str, source: str) -> Matrix | None:
        """Return T_target_source (4, 4) along the shortest chain; None if no chain joins them."""
        frames = chain(normalized(target), normalized(source), self.around)
        if frames is None:
            return None
        T_target_source = np.eye(4)
        for before, after in pairwise(frames):
            T_target_source = T_target_source @ self._neighbours[before][after]
        return T_target_source

    def around(self, frame: str) -> dict[str, Matrix]:
        """Return the frames that a transform joins to this one, with T_frame_neighbour."""
        return self._neighbours.get(frame, {})

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames, sorted."""
        return tuple(sorted(self._neighbours))


def chain(
    target: str, source: str, around: Callable[[str], Iterable[str]]
) -> tuple[str, ...] | None:
    """Return the shortest path between two frames over neighbours; None if there is none."""
    if not target:
        return None
    before: dict[str, str] = {target: ""}
    queue = deque([target])
    while queue and source not in before:
        frame = queue.popleft()
        for neighbour in around(frame):
            if neighbour not in before:
                before[neighbour] = frame
                queue.append(neighbour)
    if source not in before:
        return None
    frames = [source]
    while frames[-1] != target:
        frames.append(before[frames[-1]])
    return tuple(reversed(frames))


def is_transform(parent: str, child: str, T_parent_child: Matrix) -> bool:
    """Return whether it joins two different frames by a rigid motion."""
    return bool(parent and child and parent != child and se3.is_rigid(T_parent_child))


def normalized(frame_id: str) -> str:
    """Return a frame id without the leading slash of ROS 1."""
    return frame_id.removeprefix("/")
