"""Rows of the `messages` table of a damaged rosbag2 database, from its pages.

In a file that is cut off, the top of the table's tree points to pages that are gone, so SQL finds
no row, while the leaves that hold the rows are still there. Looking at every page finds them.
Layout: https://sqlite.org/fileformat2.html, sections 1.6 (b-tree pages) and 2.1 (records).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

TABLE_LEAF = 0x0D
HEADER_BYTES = 8  # of a leaf page
MESSAGE_COLUMNS = 4  # id, topic_id, timestamp, data
INTEGER_BYTES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # by serial type


class Row(NamedTuple):
    """One row of `messages`."""

    rowid: int
    topic_id: int
    timestamp_ns: int
    data: bytes


class _Cell(NamedTuple):
    rowid: int
    size: int  # of the record
    at: int  # where the record begins in the page
    page: int
    types: list[int]  # serial types of the columns


class MessagePages:
    """Iterates rows in the order in which they were written, without those that are not whole."""

    def __init__(self, path: Path):
        self._path, self._file_bytes = path, path.stat().st_size
        with path.open("rb") as file:
            header = file.read(100)
        if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
            raise ValueError("not a sqlite3 file")
        size = int.from_bytes(header[16:18], "big")
        self._page_bytes = 65536 if size == 1 else size
        self._usable = self._page_bytes - header[20]

    def __iter__(self) -> Iterator[Row]:
        with self._path.open("rb") as file:
            cells = {cell.rowid: cell for cell in self._cells(file)}
            for rowid in sorted(cells):
                row = self._row(file, cells[rowid])
                if row is not None:
                    yield row

    def _page(self, file: BinaryIO, number: int) -> bytes:
        """Page by its number, from 1; short or empty beyond the end."""
        file.seek((number - 1) * self._page_bytes)
        return file.read(self._page_bytes)

    def _cells(self, file: BinaryIO) -> Iterator[_Cell]:
        for number in range(2, self._file_bytes // self._page_bytes + 1):
            page = self._page(file, number)
            if page[0] != TABLE_LEAF:
                continue
            for start in self._cell_starts(page):
                size, at = _varint(page, start)
                rowid, at = _varint(page, at)
                types = _serial_types(page, at)
                # A length that cannot be would follow a broken chain of pages for ever.
                if _is_message(types) and size <= self._file_bytes:
                    yield _Cell(rowid, size, at, number, types)

    def _cell_starts(self, page: bytes) -> list[int]:
        count = min(int.from_bytes(page[3:5], "big"), self._usable // 4)
        pointers = struct.unpack_from(f">{count}H", page, HEADER_BYTES)
        return [at for at in pointers if HEADER_BYTES <= at < self._usable - 4]

    def _row(self, file: BinaryIO, cell: _Cell) -> Row | None:
        record = self._record(file, self._page(file, cell.page), cell)
        return _parsed(cell.rowid, cell.types, record) if record is not None else None

    def _record(self, file: BinaryIO, page: bytes, cell: _Cell) -> bytes | None:
        local = self._local_bytes(cell.size)
        parts, have = [page[cell.at : cell.at + local]], local
        following = int.from_bytes(page[cell.at + local : cell.at + local + 4], "big")
        while have < cell.size:
            page = self._page(file, following) if following else b""
            if len(page) < self._page_bytes:
                return None
            parts.append(page[4 : 4 + min(self._usable - 4, cell.size - have)])
            have += len(parts[-1])
            following = int.from_bytes(page[:4], "big")
        return b"".join(parts)

    def _local_bytes(self, size: int) -> int:
        """How much of a record lies in its leaf; the rest is in a chain of overflow pages."""
        most = self._usable - 35
        if size <= most:
            return size
        least = (self._usable - 12) * 32 // 255 - 23
        wanted = least + (size - least) % (self._usable - 4)
        return wanted if wanted <= most else least


def _is_message(types: list[int]) -> bool:
    """Three integers and a blob; other tables have other columns."""
    integers = all(kind in INTEGER_BYTES for kind in types[:3])
    return len(types) == MESSAGE_COLUMNS and integers and types[3] >= 12 and types[3] % 2 == 0


def _parsed(rowid: int, types: list[int], record: bytes) -> Row:
    at, _ = _varint(record, 0)
    integers = []
    for kind in types[:3]:
        width = INTEGER_BYTES[kind]
        value = int.from_bytes(record[at : at + width], "big", signed=True)
        integers.append({8: 0, 9: 1}.get(kind, value))
        at += width
    return Row(rowid, integers[1], integers[2], record[at : at + (types[3] - 12) // 2])


def _serial_types(page: bytes, at: int) -> list[int]:
    header_bytes, position = _varint(page, at)
    types: list[int] = []
    while position < min(at + header_bytes, len(page)) and len(types) <= MESSAGE_COLUMNS:
        kind, position = _varint(page, position)
        types.append(kind)
    return types


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A big-endian integer of 1 to 9 bytes, and where it ends."""
    value = 0
    for i in range(at, min(at + 8, len(data))):
        value = value << 7 | data[i] & 0x7F
        if data[i] < 0x80:
            return value, i + 1
    last = data[at + 8] if at + 8 < len(data) else 0
    return value << 8 | last, at + 9
