"""Measure how well features find hand-marked points again: pairs of photos as in WxBS.

A pair is a folder with two images, `01.*` and `02.*`, and `corrs.txt` with lines `x1 y1 x2 y2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from pixloc_ros.features.pyramid import FeaturePyramid

STEP_PX = 1  # of the search
JOINT = "all levels"  # sum of their similarities


class Describes(Protocol):
    """A feature extractor, or a network to compare with it."""

    def extract(self, image_rgb: NDArray[np.uint8]) -> FeaturePyramid: ...


@dataclass(frozen=True, slots=True)
class MarkedPair:
    """Two images of one place, and points that people marked in both."""

    name: str
    images_rgb: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    pixels: NDArray[np.float32]  # (N, 2, 2): point, image, x and y


@dataclass(frozen=True, slots=True)
class MatchScore:
    """Window for the second point around its true position, and tolerance of a match."""

    window_px: int = 20  # to each side
    tolerance_px: float = 8.0

    @property
    def chance(self) -> float:
        """Share that random guesses in the window would find."""
        return float((np.linalg.norm(self.offsets(), axis=-1) <= self.tolerance_px).mean())

    def offsets(self) -> NDArray[np.float32]:
        """Positions (P, 2) relative to the true one."""
        steps = np.arange(-self.window_px, self.window_px + 1, STEP_PX, dtype=np.float32)
        return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def read_pairs(folder: Path) -> list[Path]:
    """Folders of the pairs below `folder`; raises DataError if there are none."""
    found = sorted(path.parent for path in folder.glob("*/corrs.txt"))
    if not found:
        raise DataError(f"{folder} has no */corrs.txt: expected PAIR/01.jpg, 02.jpg, corrs.txt")
    return found


def read_pair(folder: Path) -> MarkedPair:
    """Raises DataError for images or points that cannot be read."""
    points_file = folder / "corrs.txt"
    try:
        pixels = np.loadtxt(points_file, dtype=np.float32, ndmin=2).reshape(-1, 2, 2)
    except ValueError as error:
        raise DataError(f"{points_file} has lines other than `x1 y1 x2 y2`: {error}") from None
    first, second = (_read_image(folder, stem) for stem in ("01", "02"))
    return MarkedPair(folder.name, (first, second), pixels)


def found(
    features: Describes, pair: MarkedPair, search: MatchScore
) -> dict[str, NDArray[np.bool_]]:
    """Return which points (N,) are found again, per level (`stride 16`, ...) and by all."""
    first, second = (features.extract(image) for image in pair.images_rgb)
    hits = [list(_hits(first, second, point, search)) for point in pair.pixels]
    names = [*(f"stride {level.stride}" for level in first.levels), JOINT]
    return dict(zip(names, np.array(hits).reshape(-1, len(names)).T, strict=True))


def _hits(
    first: FeaturePyramid, second: FeaturePyramid, point: NDArray[np.float32], search: MatchScore
) -> Iterator[bool]:
    offsets = search.offsets()
    similarities = _similarities(first, second, point, offsets)
    for similarity in (*similarities, torch.stack(similarities).sum(0)):
        offset = offsets[int(similarity.argmax())]
        yield bool(np.linalg.norm(offset) <= search.tolerance_px)


def _similarities(
    first: FeaturePyramid,
    second: FeaturePyramid,
    point: NDArray[np.float32],
    offsets: NDArray[np.float32],
) -> list[Tensor]:
    """Return cosines (P,) per level of a point (2, 2) with positions in the second image."""
    here = first.sample(torch.from_numpy(point[:1]))
    there = second.sample(torch.from_numpy(point[1] + offsets))
    return [
        torch.where(valid, features @ reference[0], -1.0)
        for (reference, _, _), (features, _, valid) in zip(here, there, strict=True)
    ]


def _read_image(folder: Path, stem: str) -> NDArray[np.uint8]:
    for path in sorted(folder.glob(f"{stem}.*")):
        image = image_files.read(path)
        if image is not None:
            return image
    raise DataError(f"{folder} has no image {stem}.* that can be read")
