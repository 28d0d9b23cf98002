"""Positions from point cloud files: PLY and PCD with numpy, LAS and LAZ through laspy."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import MapError

Points = NDArray[np.float64]  # (N, 3)
PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
MAX_HEADER_LINES = 200


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


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    dtype: str


def _xyz(records: NDArray) -> Points:
    return np.column_stack([records[axis].astype(np.float64) for axis in "xyz"])


def _read_ascii(file: BinaryIO, columns: Sequence[_Column], count: int) -> Points:
    wanted = [next(i for i, c in enumerate(columns) if c.name == axis) for axis in "xyz"]
    text = io.StringIO(file.read().decode("ascii", "replace"))
    return np.loadtxt(text, usecols=wanted, max_rows=count, ndmin=2)


def _read_binary(file: BinaryIO, columns: Sequence[_Column], count: int, order: str) -> Points:
    layout = np.dtype([(c.name, order + c.dtype) for c in columns])
    content = file.read(count * layout.itemsize)
    if len(content) < count * layout.itemsize:
        raise ValueError(f"{len(content) // layout.itemsize} of {count} points are there")
    return _xyz(np.frombuffer(content, layout))


def _header(file: BinaryIO, last: str) -> list[list[str]]:
    """Words of the header's lines up to the one that begins with `last`."""
    lines: list[list[str]] = []
    for _ in range(MAX_HEADER_LINES):
        lines.append(file.readline().decode("ascii", "replace").split())
        if lines[-1][:1] == [last]:
            return [line for line in lines if line]
    raise ValueError(f"no line '{last}' in its header")


def _read_ply(path: Path) -> Points:
    with path.open("rb") as file:
        header = _header(file, "end_header")
        if header[0] != ["ply"]:
            raise ValueError("it does not begin with 'ply'")
        order = PLY_ORDERS[next(line[1] for line in header if line[0] == "format")]
        start = [line[0] for line in header].index("element")
        if header[start][1] != "vertex":
            raise ValueError("its first element is not 'vertex'")
        columns = []
        for line in header[start + 1 :]:
            if line[0] == "element":
                break
            if line[0] == "property":
                columns.append(_Column(line[2], PLY_TYPES[line[1]]))
        count = int(header[start][2])
        if order == "":
            return _read_ascii(file, columns, count)
        return _read_binary(file, columns, count, order)


def _read_pcd(path: Path) -> Points:
    with path.open("rb") as file:
        header = {line[0]: line[1:] for line in _header(file, "DATA")}
        count = int(header["POINTS"][0])
        columns = []
        repeats = header.get("COUNT", ["1"] * len(header["FIELDS"]))
        for index, (name, size, kind, repeat) in enumerate(
            zip(header["FIELDS"], header["SIZE"], header["TYPE"], repeats, strict=True)
        ):
            # Padding fields are all called "_", and some fields repeat.
            label = name if name in "xyz" else f"{index}_{name}"
            copies = range(int(repeat))
            columns += [_Column(label + f"_{i}" * (i > 0), kind.lower() + size) for i in copies]
        if header["DATA"] == ["ascii"]:
            return _read_ascii(file, columns, count)
        if header["DATA"] == ["binary"]:
            return _read_binary(file, columns, count, "<")
    return _read_with_open3d(path)


def _read_with_open3d(path: Path) -> Points:
    try:
        import open3d
    except ImportError:
        raise MapError(
            f"{path}: compressed PCD needs open3d: pip install open3d, or save it as binary"
        ) from None
    return np.asarray(open3d.io.read_point_cloud(str(path)).points)


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
    ".ply": _read_ply,
    ".pcd": _read_pcd,
    ".las": _read_las,
    ".laz": _read_las,
}
