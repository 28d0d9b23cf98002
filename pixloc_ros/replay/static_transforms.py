"""Chains of fixed transforms between frames, as published on /tf_static."""

from __future__ import annotations

from collections import deque

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix


class StaticTransforms:
    """A graph of rigid transforms that never change; the newest of two between a pair wins."""

    def __init__(self) -> None:
        self._neighbours: dict[str, dict[str, Matrix]] = {}

    def add(self, parent: str, child: str, T_parent_child: Matrix) -> bool:
        """Add one transform; False, and nothing added, where it is not rigid or names no frames."""
        parent, child = normalized(parent), normalized(child)
        if not parent or not child or parent == child or not se3.is_rigid(T_parent_child):
            return False
        T = np.asarray(T_parent_child, dtype=np.float64)
        self._neighbours.setdefault(parent, {})[child] = T
        self._neighbours.setdefault(child, {})[parent] = se3.inverse(T)
        return True

    def lookup(self, target: str, source: str) -> Matrix | None:
        """T_target_source (4, 4) along the shortest chain, or None where no chain joins them."""
        target, source = normalized(target), normalized(source)
        if target == source and target:
            return np.eye(4)
        reached = {target: np.eye(4)}
        queue = deque([target])
        while queue:
            frame = queue.popleft()
            for neighbour, T_frame_neighbour in self._neighbours.get(frame, {}).items():
                if neighbour in reached:
                    continue
                reached[neighbour] = reached[frame] @ T_frame_neighbour
                if neighbour == source:
                    return reached[neighbour]
                queue.append(neighbour)
        return None

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames, sorted."""
        return tuple(sorted(self._neighbours))


def normalized(frame_id: str) -> str:
    """A frame id without the leading slash of ROS 1."""
    return frame_id.removeprefix("/")
