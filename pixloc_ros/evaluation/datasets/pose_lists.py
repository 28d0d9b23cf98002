"""Read lists of camera poses as the benchmarks write them, each with its own convention.

Every line is `name qw qx qy qz x y z`, the quaternion from world to camera. In most files x y z is
the translation (COLMAP's convention), in some the camera centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.hloc import read_lines

NORM_TOLERANCE = 0.01  # beyond it, the four numbers are not a quaternion


def read_poses(path: Path, extra_columns: int = 0) -> dict[str, Matrix]:
    """Read T_cam_world (4, 4) by name from lines with translations.

    extra_columns: numbers after the pose, which are ignored. Raises DataError naming a wrong line,
    and for a file without poses.
    """
    poses = {name: pose(numbers, where) for where, name, numbers in _rows(path, extra_columns)}
    if not poses:
        raise DataError(f"{path} holds no poses; expected lines `name qw qx qy qz tx ty tz`")
    return poses


def read_poses_of_centres(path: Path) -> dict[str, Matrix]:
    """Read T_cam_world (4, 4) by name from lines with camera centres; the file may be empty.

    Raises DataError naming a wrong line.
    """
    return {
        name: pose_of_centre(numbers[:4], numbers[4:7], where)
        for where, name, numbers in _rows(path, 0)
    }


def by_query(path: Path, poses: Mapping[str, Matrix], names: Sequence[str]) -> dict[str, Matrix]:
    """Return poses by query name; the file's names may lack leading folders, as in submissions.

    Raises DataError if no pose is of a query, and if two queries share a shortened name.
    """
    parts = max(name.count("/") for name in poses) + 1
    query_of: dict[str, str] = {}
    for name in names:
        short = "/".join(name.split("/")[-parts:])
        if query_of.setdefault(short, name) != name:
            raise DataError(f"{path} has names without folders, and two queries are {short}")
    found = {query_of[name]: T for name, T in poses.items() if name in query_of}
    if not found:
        raise DataError(
            f"{path} has no pose of a query: they are named like '{names[0]}', it has "
            f"'{next(iter(poses))}'"
        )
    return found


def read_focal_lengths(path: Path) -> dict[str, float]:
    """Read the focal length in pixels that follows each pose."""
    return {name: float(numbers[7]) for _, name, numbers in _rows(path, 1)}


def pose(numbers: Matrix, where: str) -> Matrix:
    """Return T_cam_world (4, 4) of a quaternion and a translation (7,)."""
    return se3.from_qvec_wxyz(_checked(numbers[:4], where), numbers[4:7])


def pose_of_centre(qvec_wxyz: Matrix, centre: Matrix, where: str) -> Matrix:
    """Return T_cam_world (4, 4) of the rotation into the camera and the camera centre: t = -R c."""
    T_cam_world = se3.from_qvec_wxyz(_checked(qvec_wxyz, where), np.zeros(3))
    T_cam_world[:3, 3] = -T_cam_world[:3, :3] @ centre
    return T_cam_world


def _checked(qvec_wxyz: Matrix, where: str) -> Matrix:
    norm = float(np.linalg.norm(qvec_wxyz))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise DataError(f"{where}: quaternion has norm {norm:.3g}, expected 1; check the columns")
    return qvec_wxyz


def _rows(path: Path, extra_columns: int) -> list[tuple[str, str, Matrix]]:
    """Return location, name and numbers (7 + extra_columns,) of each line."""
    rows, names = [], set()
    for where, line in read_lines(path, "poses"):
        words = line.split()
        try:
            numbers = np.array(words[1:], np.float64)
        except ValueError:
            numbers = np.zeros(0)
        if len(numbers) != 7 + extra_columns or not np.isfinite(numbers).all():
            focal = " f" * extra_columns
            raise DataError(f"{where}: expected `name qw qx qy qz x y z{focal}`, got '{line[:60]}'")
        if words[0] in names:
            raise DataError(f"{where}: image {words[0]} has a pose already; keep one of them")
        names.add(words[0])
        rows.append((where, words[0], numbers))
    return rows
