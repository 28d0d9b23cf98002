"""Save the last verified pose to a file, for the next start on the same map."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.foreign_files import read_json
from pixloc_ros.errors import DataError, PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.types import Estimate, Matrix

SAVE_EVERY_S = 5.0  # by the wall clock, while poses are accepted


@dataclass(frozen=True, slots=True)
class LastPose:
    """T_map_base (4, 4) as rows, with the SHA-256 of its map."""

    map_sha256: str
    stamp_ns: int
    T_map_base: list[list[float]]

    def matrix(self) -> Matrix:
        """Return T_map_base (4, 4). Raises DataError if it is not a pose."""
        try:
            T_map_base = np.array(self.T_map_base, np.float64)
        except (TypeError, ValueError):
            T_map_base = np.zeros((0, 0))
        if T_map_base.shape != (4, 4) or not se3.is_rigid(T_map_base):
            raise DataError("its T_map_base is not a pose")
        return T_map_base


class LastPoseFile:
    """Keeps the last accepted pose of one map. Writes rarely, and atomically.

    warn: called with one line about a failure to read or write; nothing is ever raised.
    """

    def __init__(self, path: Path, map_sha256: str, warn: Callable[[str], None]) -> None:
        self._path = path
        self._map_sha256 = map_sha256
        self._warn = warn
        self._unsaved: Estimate | None = None
        self._saved_s = float("-inf")

    def recall(self) -> Matrix | None:
        """Return T_map_base (4, 4) of the last run on this map; None if unknown."""
        if not self._path.exists():
            return None
        try:
            last = LastPose(**read_json(self._path, DataError))
            if last.map_sha256 != self._map_sha256:
                self._warn(f"last pose in {self._path} belongs to another map: not used")
                return None
            return last.matrix()
        except (OSError, ValueError, TypeError, PixlocError) as error:
            self._warn(f"last pose in {self._path} cannot be used: {error}")
            return None

    def keep(self, estimate: Estimate) -> None:
        """Keep the pose of an estimate if it was accepted."""
        if not estimate.ok:
            return
        self._unsaved = estimate
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the kept pose if it has changed since the last time."""
        estimate, self._unsaved = self._unsaved, None
        if estimate is None or estimate.T_map_base is None:
            return
        self._saved_s = time.monotonic()
        rows = estimate.T_map_base.tolist()
        try:
            last = LastPose(self._map_sha256, estimate.stamp_ns, rows)
            write_text(self._path, json.dumps(asdict(last)) + "\n")
        except PixlocError as error:
            self._warn(f"last pose not kept: {error}")
