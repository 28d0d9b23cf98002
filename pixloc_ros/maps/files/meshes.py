"""Meshes as clouds: points spread evenly over their triangles."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.maps.files import ply
from pixloc_ros.maps.files.ply import Points, Triangles

MAX_POINTS = 50_000_000
# Additive recurrence of low discrepancy in the unit square (Roberts, 2018: "R2").
R2_STEPS = np.array([0.7548776662466927, 0.5698402909980532])


def read_mesh_points(path: str | Path, spacing_m: float) -> Points:
    """Points (N, 3) on a .ply or .obj mesh, one per spacing_m^2 of its area.

    Raises MapError for a file that cannot be read, without area, or so large that it would give
    more than MAX_POINTS.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise MapError(f"{path}: meshes are read from {', '.join(READERS)}; convert it")
    try:
        vertices, triangles = reader(path)
        corners = vertices[triangles]
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise MapError(f"{path} is truncated or damaged ({error}); export it again") from None
    corners = corners[np.isfinite(corners).all((1, 2))]
    count = _areas(corners).sum() / spacing_m**2
    if not 1 <= count <= MAX_POINTS:
        raise MapError(
            f"{path} would give {count:.3g} points {spacing_m:g} m apart; is it in metres? "
            f"--voxel sets the distance"
        )
    return sample(corners, spacing_m)


def sample(corners: NDArray[np.float64], spacing_m: float) -> Points:
    """Points (N, 3), one per spacing_m^2, on triangles given by their corners (T, 3, 3)."""
    areas = _areas(corners)
    ends = np.floor(np.cumsum(areas) / spacing_m**2).astype(np.int64)
    owner = np.repeat(np.arange(len(areas)), np.diff(ends, prepend=0))
    # Folded along its diagonal, the unit square is a triangle.
    square = (0.5 + np.arange(1, len(owner) + 1)[:, None] * R2_STEPS) % 1.0
    folded = np.where(square.sum(1, keepdims=True) > 1, 1 - square, square)
    a, b, c = (corners[owner, i] for i in range(3))
    return a + folded[:, :1] * (b - a) + folded[:, 1:] * (c - a)


def _areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.linalg.norm(np.cross(first, second), axis=-1) / 2


def _read_obj(path: Path) -> tuple[Points, Triangles]:
    vertices, faces = [], []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:4]])
            elif words[:1] == ["f"]:
                numbers = [int(word.partition("/")[0]) for word in words[1:]]
                # Counted from one, or backwards from the last vertex so far.
                faces.append([n - 1 if n > 0 else len(vertices) + n for n in numbers])
    if not faces:
        raise ValueError("it has no faces")
    return np.array(vertices, np.float64), ply.fans(faces)


READERS: dict[str, Callable[[Path], tuple[Points, Triangles]]] = {
    ".ply": ply.read_mesh,
    ".obj": _read_obj,
}
