"""Images whose poses are known, and which of them are near enough to show the same things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.errors import MapError
from pixloc_ros.geometry.camera import Camera

MAX_TURN_DEG = 60.0  # images turned by more share little
NEIGHBOURS = 8  # of each image
CANDIDATES = 64  # nearest images among which neighbours are sought


@dataclass(frozen=True, slots=True)
class PosedImage:
    """One image file with its camera and the camera's pose."""

    name: str  # as keyframes of the map are named
    path: Path
    camera: Camera
    T_map_cam: NDArray[np.float64]  # (4, 4)


def check_posed(images: Sequence[PosedImage]) -> None:
    """Raise MapError unless there are two images or more, of distinct names and places."""
    if len(images) < 2:
        raise MapError(f"{len(images)} posed image(s): a map needs at least two")
    names = [image.name for image in images]
    if len(set(names)) < len(names):
        raise MapError(f"image '{next(n for n in names if names.count(n) > 1)}' has two poses")
    places = np.stack([image.T_map_cam[:3, 3] for image in images])
    if np.ptp(places, axis=0).max() == 0:
        raise MapError("all posed images are at one place; give poses with translations")


def near_pairs(T_map_cam: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (i < j) of poses (N, 4, 4): each with the nearest ones that look the same way."""
    places, forward = T_map_cam[:, :3, 3], T_map_cam[:, :3, 2]
    count = min(CANDIDATES, len(places))
    _, order = cKDTree(places).query(places, k=count)
    pairs = set()
    for i, others in enumerate(order):
        alike = forward[others] @ forward[i] > np.cos(np.deg2rad(MAX_TURN_DEG))
        for j in others[alike & (others != i)][:NEIGHBOURS].tolist():
            pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)
