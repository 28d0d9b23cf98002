"""Positions from point cloud files: PLY and PCD with numpy, LAS and LAZ through laspy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixloc_ros.errors import MapError
from pixloc_ros.maps.files import ply
from pixloc_ros.maps.files.ply import Points, Property


def read_cloud(path: str | Path) -> Points:
    """Finite positions (N, 3) of a .ply, .pcd, .las or .laz file.

    Raises MapError for a file that cannot be read, for one without points, and naming the
    package to install where a format needs one.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise MapError(f"{path}: clouds are read from {', '.join(READERS)}; convert it")
    try:
        points = reader(path)
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise MapError(f"{path} is truncated or damaged ({error}); export it again") from None
    points = points[np.isfinite(points).all(-1)]
    if not len(points):
        raise MapError(f"{path} holds no finite point; export it again")
    return points


def _read_pcd(path: Path) -> Points:
    with path.open("rb") as file:
        header = {line[0]: line[1:] for line in ply.header_lines(file, "DATA")}
        count = int(header["POINTS"][0])
        columns = []
        repeats = header.get("COUNT", ["1"] * len(header["FIELDS"]))
        for index, (name, size, kind, repeat) in enumerate(
            zip(header["FIELDS"], header["SIZE"], header["TYPE"], repeats, strict=True)
        ):
            # Padding fields are all called "_", and some fields repeat.
            label = name if name in "xyz" else f"{index}_{name}"
            copies = range(int(repeat))
            columns += [Property(label + f"_{i}" * (i > 0), kind.lower() + size) for i in copies]
        if header["DATA"] == ["ascii"]:
            return ply.read_lines(file, columns, count)
        if header["DATA"] == ["binary"]:
            return ply.read_records(file, columns, count, "<")
    return _read_with_open3d(path)


def _read_with_open3d(path: Path) -> Points:
    try:
        import open3d
    except ImportError:
        raise MapError(
            f"{path}: compressed PCD needs open3d: pip install open3d, or save it as binary"
        ) from None
    return np.asarray(open3d.io.read_point_cloud(path).points)


def _read_las(path: Path) -> Points:
    try:
        import laspy
    except ImportError:
        raise MapError(f'{path}: LAS and LAZ need laspy: pip install "laspy[lazrs]"') from None
    try:
        return np.asarray(laspy.read(path).xyz, np.float64)
    except laspy.LaspyException as error:
        raise ValueError(" ".join(str(error).split())) from None


READERS: dict[str, Callable[[Path], Points]] = {
    ".ply": ply.read_vertices,
    ".pcd": _read_pcd,
    ".las": _read_las,
    ".laz": _read_las,
}
