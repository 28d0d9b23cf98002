"""Shared by the experiments: frames of several drives on their maps, shares with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pixloc_ros.cli.progress import track
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.evaluation.shots import Localizes, Offset, Shot, posed_frames, shoot
from pixloc_ros.maps.files.posed_images import PosedImages
from pixloc_ros.types import Frame, Matrix

QUANTILE = 1.959964  # of the normal distribution: intervals of 95 %


@dataclass(frozen=True, slots=True)
class Series:
    """Frames of a drive, each localized several times from wrong priors."""

    drive: PosedImages
    index: tuple[int, ...]
    offset: Offset
    per_frame: int = 1
    degrade: str = "clean"
    seed: int = 0

    def __len__(self) -> int:
        return len(self.index) * self.per_frame

    def frames(self) -> Iterator[tuple[Frame, Matrix]]:
        """Yield frames with their true T_map_base."""
        return posed_frames(self.drive, self.index, self.degrade, self.seed)

    def shoot(self, localizer: Localizes, name: str) -> list[Shot]:
        """Localize all frames, with the same random priors in every call."""
        shots = shoot(localizer, self.frames(), self.offset, self.per_frame, self.seed)
        return list(track(shots, name, len(self)))


@dataclass(frozen=True, slots=True)
class Share:
    """Number of shots that ended near the truth, with Wilson's interval of 95 %."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (JASA 1927)."""
        z2 = QUANTILE**2
        middle = (self.hits + z2 / 2) / (self.of + z2)
        spread = self.hits * (self.of - self.hits) / self.of + z2 / 4
        half = QUANTILE * float(np.sqrt(spread)) / (self.of + z2)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f}-{high:.2f})"


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits; errors below both count as a hit."""

    metres: float
    degrees: float

    def __str__(self) -> str:
        return f"{self.metres:g} m, {self.degrees:g}°"


LIMITS = (Limit(0.1, 0.5), Limit(0.25, 2.0))


class Record:
    """Errors (N, 2) by case and map, in a growing file: its cases are not measured again."""

    def __init__(self, path: Path):
        self.path = path
        self._found: dict[str, dict[str, list]] = {}
        if path.is_file():
            self._found = json.loads(path.read_text())

    def has(self, case: str, map_folder: Path) -> bool:
        return map_folder.name in self._found.get(case, {})

    def add(self, case: str, map_folder: Path, found: NDArray[np.float64]) -> None:
        """Add errors, also to the file."""
        self.add_all({case: found}, map_folder)

    def add_all(self, found: Mapping[str, NDArray[np.float64]], map_folder: Path) -> None:
        """Add errors of several cases: all, or none if the program is killed."""
        for case, errors in found.items():
            self._found.setdefault(case, {})[map_folder.name] = errors.round(5).tolist()
        write_text(self.path, json.dumps(self._found) + "\n")

    def pooled(self) -> dict[str, NDArray[np.float64]]:
        """Return the errors of all maps together, by case."""
        return {case: np.concatenate(list(parts.values())) for case, parts in self._found.items()}


def errors(shots: Sequence[Shot]) -> NDArray[np.float64]:
    """(N, 2) in m and degrees, of what was found, accepted or not."""
    return np.array([(shot.error_m, shot.error_deg) for shot in shots]).reshape(-1, 2)


def share(found: NDArray[np.float64], limit: Limit) -> Share:
    """Count the errors (N, 2) below a limit."""
    hits = (found[:, 0] < limit.metres) & (found[:, 1] < limit.degrees)
    return Share(int(hits.sum()), len(found))


def area_under_recall(found: NDArray[np.float64], up_to_m: float) -> float:
    """Return the area under the share of errors (N, 2) below a distance up to a limit; 1 at best.

    A rotation counts by how far it moves a point 25 m away: 0.57 deg counts as 0.25 m.
    """
    distance = np.maximum(found[:, 0], np.deg2rad(found[:, 1]) * 25.0)
    return float(np.clip(1 - distance / up_to_m, 0, 1).mean())


def rows(results: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, Any]]:
    """Summarize errors (N, 2) by name, for a file and a table."""
    return {
        name: {
            "shots": len(found),
            **{str(limit): str(share(found, limit)) for limit in LIMITS},
            "median_m": float(np.median(found[:, 0])),
            "median_deg": float(np.median(found[:, 1])),
        }
        for name, found in results.items()
    }


def table(title: str, figures: dict[str, dict[str, Any]]) -> Table:
    """Return a table with one row per name."""
    columns = next(iter(figures.values()))
    shown = Table("", *columns, title=title)
    for name, cells in figures.items():
        shown.add_row(
            name, *(f"{c:.4f}" if isinstance(c, float) else str(c) for c in cells.values())
        )
    return shown


def drive_index(drive: PosedImages, exclude_every: int, every: int) -> tuple[int, ...]:
    """Select the frames to localize: without every Nth, the map's, and every Nth of the others."""
    frames = [i for i in range(len(drive.files)) if not exclude_every or i % exclude_every]
    return tuple(frames[::every])
