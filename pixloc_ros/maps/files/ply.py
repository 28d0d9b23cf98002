"""PLY files: the vertices and, of meshes, the faces; ascii and binary, with numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 3)
Triangles = NDArray[np.int64]  # (T, 3) indices of points

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
STRUCT_CODES = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d",
}  # fmt: skip
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
MAX_HEADER_LINES = 200


@dataclass(frozen=True, slots=True)
class Property:
    """One number, or one list of numbers, of every record."""

    name: str
    dtype: str
    count_dtype: str = ""  # of a list


@dataclass(frozen=True, slots=True)
class Element:
    """`count` records of the same properties, in the order of the file."""

    name: str
    count: int
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in the binary or ASCII part that follows."""

    order: str  # byte order, empty for ascii
    elements: tuple[Element, ...]


def read_vertices(path: Path) -> Points:
    """Positions (N, 3); raises ValueError or KeyError for a file that is not whole."""
    with path.open("rb") as file:
        return _vertices(file, _header(file))


def read_mesh(path: Path) -> tuple[Points, Triangles]:
    """Positions and triangles; faces of more corners are cut into fans. Raises as above."""
    with path.open("rb") as file:
        header = _header(file)
        vertices = _vertices(file, header)
        if [element.name for element in header.elements[1:2]] != ["face"]:
            raise ValueError("it has no faces after its vertices")
        faces = header.elements[1]
        corners = _faces_ascii if header.order == "" else _faces_binary
        return vertices, fans(list(corners(file, faces, header.order)))


def fans(faces: Sequence[Sequence[int]] | Sequence[NDArray]) -> Triangles:
    """Triangles (T, 3) of convex faces with any number of corners."""
    triangles = [(f[0], f[i], f[i + 1]) for f in faces for i in range(1, len(f) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def header_lines(file: BinaryIO, last: str) -> list[list[str]]:
    """Words of the header's lines up to the one that begins with `last`; also that of PCD."""
    lines: list[list[str]] = []
    for _ in range(MAX_HEADER_LINES):
        lines.append(file.readline().decode("ascii", "replace").split())
        if lines[-1][:1] == [last]:
            return [line for line in lines if line]
    raise ValueError(f"no line '{last}' in its header")


def read_records(file: BinaryIO, properties: Sequence[Property], count: int, order: str) -> Points:
    """Fields x, y, z (N, 3) of binary records, which PCD files have too."""
    layout = np.dtype([(p.name, order + p.dtype) for p in properties])
    content = file.read(count * layout.itemsize)
    if len(content) < count * layout.itemsize:
        raise ValueError(f"{len(content) // layout.itemsize} of {count} points are there")
    records = np.frombuffer(content, layout)
    return np.column_stack([records[axis].astype(np.float64) for axis in "xyz"])


def read_lines(file: BinaryIO, properties: Sequence[Property], count: int) -> Points:
    """As read_records, of ascii files."""
    names = [p.name for p in properties]
    lines = [file.readline().decode("ascii", "replace") for _ in range(count)]
    return np.loadtxt(lines, usecols=[names.index(axis) for axis in "xyz"], ndmin=2)


def write_points(path: Path, points: Points) -> None:
    """A binary file of vertices without faces."""
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(header.encode() + points.astype("<f8").tobytes())


def _header(file: BinaryIO) -> Header:
    lines = header_lines(file, "end_header")
    if lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    order = ORDERS[next(line[1] for line in lines if line[0] == "format")]
    starts = [i for i, line in enumerate(lines) if line[0] == "element"]
    elements = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        properties = [_property(line) for line in lines[start + 1 : end] if line[0] == "property"]
        elements.append(Element(lines[start][1], int(lines[start][2]), tuple(properties)))
    if not elements or elements[0].name != "vertex":
        raise ValueError("its first element is not 'vertex'")
    return Header(order, tuple(elements))


def _property(words: Sequence[str]) -> Property:
    if words[1] == "list":
        return Property(words[4], TYPES[words[3]], TYPES[words[2]])
    return Property(words[2], TYPES[words[1]])


def _vertices(file: BinaryIO, header: Header) -> Points:
    vertex = header.elements[0]
    if header.order == "":
        return read_lines(file, vertex.properties, vertex.count)
    return read_records(file, vertex.properties, vertex.count, header.order)


def _faces_ascii(file: BinaryIO, faces: Element, order: str) -> Iterator[list[int]]:
    if not faces.properties[0].count_dtype:
        raise ValueError("its faces do not begin with their corners")
    for _ in range(faces.count):
        words = file.readline().split()
        yield [int(word) for word in words[1 : 1 + int(words[0])]]


def _faces_binary(file: BinaryIO, faces: Element, order: str) -> Iterator[tuple[int, ...]]:
    content, at = file.read(), 0
    for _ in range(faces.count):
        corners: tuple[int, ...] = ()
        for each in faces.properties:
            count = 1
            if each.count_dtype:
                count = struct.unpack_from(order + STRUCT_CODES[each.count_dtype], content, at)[0]
                at += np.dtype(each.count_dtype).itemsize
            if each.name in ("vertex_indices", "vertex_index"):
                corners = struct.unpack_from(
                    f"{order}{count}{STRUCT_CODES[each.dtype]}", content, at
                )
            at += count * np.dtype(each.dtype).itemsize
        yield corners
