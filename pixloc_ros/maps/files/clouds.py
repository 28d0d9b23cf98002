"""Point clouds: PLY and PCD read and written by open3d, LAS and LAZ read by laspy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import MapError
from pixloc_ros.maps.files import isolated

Points = NDArray[np.float64]  # (N, 3)

MAX_HEADER_LINES = 200
MAX_LAZ_RATIO = 200  # points per byte of a compressed file
LAS_HEADER_BYTES, LAS_RECORD_BYTES = 375, 54  # of LAS 1.4; of a record at least
PLY_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "float": 4, "int32": 4, "uint32": 4, "float32": 4, "double": 8,
    "float64": 8,
}  # fmt: skip


def read_cloud(path: str | Path) -> Points:
    """Read the finite positions (N, 3) of a .ply, .pcd, .las or .laz file.

    Raises MapError for a file that cannot be read, for one without points, and naming the
    package to install where a format needs one.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise MapError(f"{path}: clouds are read from {', '.join(READERS)}; convert it")
    with refusing(MapError, path, "is it whole? Export it again"):
        points = reader(path)
    points = points[np.isfinite(points).all(-1)]
    if not len(points):
        raise MapError(f"{path} holds no finite point; export it again")
    return points


def write_cloud(path: Path, points: Points) -> None:
    """Write positions (N, 3) as a .ply or .pcd file; raises MapError where that cannot be."""
    open3d = import_open3d(path)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    with silenced(open3d):
        if not open3d.io.write_point_cloud(path, cloud):
            raise MapError(f"{path} cannot be written")


def import_open3d(path: Path) -> ModuleType:
    """The module; raises MapError with the command that installs it."""
    try:
        import open3d
    except ImportError as error:
        raise MapError(
            f"{path} needs open3d ({error}): pip install 'pixloc_ros[build]', and on a bare "
            f"system apt install libusb-1.0-0"
        ) from None
    return open3d


def silenced(open3d: ModuleType):  # type: ignore[no-untyped-def]
    """A context without warnings of open3d; the caller looks at what was read instead."""
    return open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error)


def check_ply_header(path: Path) -> dict[str, int]:
    """Counts by element that a PLY file says it has; raises ValueError where it is too small."""
    counts = dict[str, int]()
    with path.open("rb") as file:
        lines = header_lines(file, "end_header")
        size = path.stat().st_size - file.tell()
    if lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    is_text, needed, element = ["format", "ascii", "1.0"] in lines, 0, ""
    for words in lines:
        if words[0] == "element":
            element = words[1]
            counts[element] = int(words[2])
        elif words[0] == "property" and counts:
            needed += counts[element] * _least_bytes(words[1:], is_text)
    if needed > size + 1 or min(counts.values(), default=-1) < 0:
        raise ValueError(f"its header tells of {needed} bytes or more, {size} are there")
    return counts


def _least_bytes(words: list[str], is_text: bool) -> int:
    """What a property takes at least; a face has three corners."""
    types = words[:1]
    if words[0] == "list":
        types = [words[1], *[words[2]] * (3 if words[3].startswith("vertex_ind") else 0)]
    return sum(2 if is_text else PLY_BYTES[type_] for type_ in types)


def header_lines(file: BinaryIO, last: str) -> list[list[str]]:
    """Words of the header's lines up to the one that begins with `last`."""
    lines: list[list[str]] = []
    for _ in range(MAX_HEADER_LINES):
        lines.append(file.readline(10_000).decode("ascii", "replace").split())
        if lines[-1][:1] == [last]:
            return [line for line in lines if line]
    raise ValueError(f"no line '{last}' in its header")


def _read_ply(path: Path) -> Points:
    return _read_points(path, check_ply_header(path).get("vertex", 0))


def _read_pcd(path: Path) -> Points:
    with path.open("rb") as file:
        header = {line[0]: line[1:] for line in header_lines(file, "DATA")}
    count, compressed = int(header["POINTS"][0]), header["DATA"] == ["binary_compressed"]
    width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
    repeats = header.get("COUNT", ["1"] * len(header["SIZE"]))
    record = sum(int(s) * int(r) for s, r in zip(header["SIZE"], repeats, strict=True))
    least = count if compressed else 2 * count if header["DATA"] == ["ascii"] else count * record
    if count != width * height or not 0 <= least <= path.stat().st_size or record <= 0:
        raise ValueError(f"its header tells of {count} points, the file is too small for them")
    return _read_points(path, count)


def _read_points(path: Path, count: int) -> Points:
    import_open3d(path)
    (points,) = isolated.read(points_of_open3d, path)
    if len(points) != count:
        raise ValueError(f"{len(points)} of {count} points are there")
    return points


def points_of_open3d(path: Path) -> tuple[Points]:
    """Positions (N, 3); none where it cannot be read. To be called by `isolated` alone."""
    open3d = import_open3d(path)
    with silenced(open3d):
        return (np.asarray(open3d.io.read_point_cloud(path).points, np.float64),)


def _read_las(path: Path) -> Points:
    try:
        import laspy  # noqa: F401
    except ImportError:
        raise MapError(f'{path}: LAS and LAZ need laspy: pip install "laspy[lazrs]"') from None
    _check_las_header(path)
    return isolated.read(points_of_laspy, path)[0]


def points_of_laspy(path: Path) -> tuple[Points]:
    """Positions (N, 3). To be called by `isolated` alone."""
    import laspy

    return (np.asarray(laspy.read(path).xyz, np.float64),)


def _check_las_header(path: Path) -> None:
    """Raise ValueError where a file is too small for what its header counts (LAS 1.4 R15)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(LAS_HEADER_BYTES).ljust(LAS_HEADER_BYTES, b"\0")
    (records,) = struct.unpack_from("<I", header, 100)
    point_bytes, points = struct.unpack_from("<HI", header, 105)
    extended = 0
    if header[24:26] == b"\x01\x04":
        (extended, more) = struct.unpack_from("<IQ", header, 243)
        points = max(points, more)
    compressed = header[104] & 0x80
    least = points / MAX_LAZ_RATIO if compressed else points * point_bytes
    if least + LAS_RECORD_BYTES * (records + extended) > size:
        raise ValueError(f"its header tells of {points} points in {size} bytes")


READERS: dict[str, Callable[[Path], Points]] = {
    ".ply": _read_ply,
    ".pcd": _read_pcd,
    ".las": _read_las,
    ".laz": _read_las,
}
