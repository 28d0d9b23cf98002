"""Meshes, and points spread evenly over their triangles.

PLY, STL and glTF are read by open3d. OBJ is read here: open3d keeps 32 bits of its coordinates,
which is half a metre in UTM.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import own_file, read_json, refusing
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.files import isolated
from pixloc_ros.maps.files.clouds import Points, check_ply_header, import_open3d, silenced

Triangles = NDArray[np.int64]  # (T, 3) numbers of vertices

SUFFIXES = (".ply", ".obj", ".stl", ".gltf")
MAX_POINTS = 30_000_000
CHUNK = 1_000_000  # points that are made at once
# Additive recurrence of low discrepancy in the unit square (Roberts, 2018: "R2").
R2_STEPS = np.array([0.7548776662466927, 0.5698402909980532])
STL_HEADER_BYTES, STL_TRIANGLE_BYTES = 84, 50


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles by the numbers of their corners."""

    vertices: Points  # (V, 3) metres
    triangles: Triangles

    @property
    def corners(self) -> NDArray[np.float64]:
        """(T, 3, 3) of the triangles."""
        return self.vertices[self.triangles]

    def moved(self, T_new_mesh: NDArray[np.float64]) -> Mesh:
        """The mesh in another frame."""
        return Mesh(se3.transform(T_new_mesh, self.vertices), self.triangles)


def read_mesh(path: str | Path) -> Mesh:
    """Read the triangles of a mesh; faces of more corners are cut into triangles.

    Raises MapError for a file that cannot be read or has no triangle.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MapError(f"{path}: meshes are read from {', '.join(SUFFIXES)}; convert it")
    with refusing(MapError, path, "is it whole? Export it again"):
        vertices, triangles = (_read_obj if suffix == ".obj" else _read_with_open3d)(path)
        if not len(triangles):
            raise ValueError("it has no faces")
        if triangles.min() < 0 or triangles.max() >= len(vertices):
            raise ValueError("its faces have corners that it lacks")
    whole = np.isfinite(vertices[triangles]).all((1, 2))
    return Mesh(np.nan_to_num(vertices), triangles[whole])


def sample_mesh(mesh: Mesh, spacing_m: float, name: str | Path = "the mesh") -> Points:
    """Spread points (N, 3) over a mesh, one per spacing_m^2 of its area.

    Raises MapError for one without area, or so large that it would give more than MAX_POINTS.
    """
    areas = _areas(mesh.corners)
    count = areas.sum() / spacing_m**2
    if not 1 <= count <= MAX_POINTS:
        raise MapError(
            f"{name} would give {count:.3g} points {spacing_m:g} m apart; is it in metres? "
            f"--voxel sets the distance"
        )
    ends = np.floor(np.cumsum(areas) / spacing_m**2).astype(np.int64)
    points = np.empty((int(ends[-1]), 3))
    for first in range(0, len(points), CHUNK):
        chunk = points[first : first + CHUNK]
        number = np.arange(first, first + len(chunk))
        owner = np.searchsorted(ends, number, side="right")
        # Folded along its diagonal, the unit square is a triangle.
        square = (0.5 + (number[:, None] + 1) * R2_STEPS) % 1.0
        folded = np.where(square.sum(1, keepdims=True) > 1, 1 - square, square)
        a, b, c = np.moveaxis(mesh.vertices[mesh.triangles[owner]], 1, 0)
        chunk[:] = a + folded[:, :1] * (b - a) + folded[:, 1:] * (c - a)
    return points


def _areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.linalg.norm(np.cross(first, second), axis=-1) / 2


def _read_with_open3d(path: Path) -> tuple[Points, Triangles]:
    if path.suffix.lower() == ".gltf":
        _check_links(path)
    least = _faces_in_header(path)
    import_open3d(path)
    vertices, triangles = isolated.read(mesh_of_open3d, path)
    if len(triangles) < least:
        raise ValueError(f"{len(triangles)} of {least} faces are there")
    return vertices, triangles


def mesh_of_open3d(path: Path) -> tuple[Points, Triangles]:
    """Vertices and triangles; none where it cannot be read. To be called by `isolated` alone."""
    open3d = import_open3d(path)
    with silenced(open3d):
        read = open3d.io.read_triangle_mesh(path)
    return np.asarray(read.vertices, np.float64), np.asarray(read.triangles, np.int64)


def _read_obj(path: Path) -> tuple[Points, Triangles]:
    vertices, triangles = [], []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:4]])
            elif words[:1] == ["f"]:
                numbers = [int(word.partition("/")[0]) for word in words[1:]]
                # Counted from one, or backwards from the last vertex so far.
                face = [n - 1 if n > 0 else len(vertices) + n for n in numbers]
                triangles += [(face[0], face[i], face[i + 1]) for i in range(1, len(face) - 1)]
    return np.array(vertices, np.float64), np.array(triangles, np.int64).reshape(-1, 3)


def _check_links(path: Path) -> None:
    """Raise MapError for a glTF file that would have files elsewhere read."""
    content = read_json(path, MapError)
    for part in ("buffers", "images"):
        for entry in content.get(part, []):
            uri = entry.get("uri", "data:")
            if not uri.startswith("data:"):
                own_file(path.parent, unquote(uri), MapError)


def _faces_in_header(path: Path) -> int:
    """How many faces the header tells of, 0 where none does.

    Raises ValueError where the file is too small for them.
    """
    if path.suffix.lower() == ".ply":
        return check_ply_header(path).get("face", 0)
    content, size = path.read_bytes()[:STL_HEADER_BYTES], path.stat().st_size
    if path.suffix.lower() != ".stl" or content.startswith(b"solid"):
        return 0
    (count,) = struct.unpack_from("<I", content, 80)
    if STL_HEADER_BYTES + count * STL_TRIANGLE_BYTES > size:
        raise ValueError(f"its header tells of {count} triangles in {size} bytes")
    return int(count)
