"""Image files as arrays."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from helpers.limits import bounded
from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError

PICTURE = np.zeros((16, 24, 3), np.uint8)
PICTURE[:, 12:] = [250, 120, 10]


def turned_by_exif(jpeg: bytes) -> bytes:
    """The same JPEG with a header that asks viewers to turn it by a quarter."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + orientation + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_images_are_not_turned_by_their_exif_header(tmp_path: Path) -> None:
    jpeg = image_files.encode(PICTURE, jpeg_quality=100)
    (tmp_path / "a.jpg").write_bytes(turned_by_exif(jpeg))
    image = image_files.read(tmp_path / "a.jpg")
    assert image is not None
    np.testing.assert_array_equal(image, image_files.decode(jpeg))
    np.testing.assert_allclose(image[:, [2, -3]], PICTURE[:, [2, -3]], atol=3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff"])
def test_what_is_no_image_gives_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert image_files.read(tmp_path / "a.jpg") is None
    assert image_files.read(tmp_path / "missing.jpg") is None


def test_a_chunk_that_claims_gigabytes_gets_none_of_them() -> None:
    png = image_files.encode(PICTURE, ".png")
    claims = png[:33] + struct.pack(">I", 0xF8000000) + png[37:]  # the chunk after the header
    with bounded(max_memory_kb=300_000):
        assert image_files.decode(claims) is None


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    image_files.write(tmp_path / "new" / "a.png", PICTURE)
    np.testing.assert_array_equal(image_files.read(tmp_path / "new" / "a.png"), PICTURE)
    with pytest.raises(DataError, match="cannot write"):
        image_files.write(tmp_path / "new" / "a.png" / "b.png", PICTURE)
