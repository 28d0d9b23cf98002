"""Read and write image files as RGB arrays; sizes are checked before anything is decoded.

Images are never rotated by their EXIF orientation, because calibrations, like COLMAP's, refer to
the pixels as stored.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import atomic_path

Image = NDArray[np.uint8]  # (H, W, 3)

IMAGE_QUALITY = 95  # of JPEGs that are localized or mapped later
PICTURE_QUALITY = 92  # of JPEGs for people

MAX_PIXELS = 100_000_000  # of a file, which takes 600 MB while it is decoded
_HEADER_BYTES = 2**18  # contain the size, unless a JPEG begins with large previews
_MAX_SCANNED_PIXELS = 1_000_000_000  # a progressive JPEG is traversed once per scan
_MAX_MISSING_BYTES = 100_000_000  # of a PNG chunk: OpenCV allocates whatever length it claims

_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read(path: Path) -> Image | None:
    """Return the RGB image (H, W, 3) of a file; None if it is missing or no image."""
    return decode(path.read_bytes()) if path.is_file() else None


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image | None:
    """Decode a file to RGB (H, W, 3); None if it is not an image or larger than max_pixels.

    Formats whose size `size_of` cannot read are not decoded.
    """
    size = size_of(content)
    if size is None or size[0] * size[1] > max_pixels:
        return None
    if _scanned(content, size) or _claims_too_much(content):
        return None
    try:
        image_bgr = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    except cv2.error:
        return None
    return None if image_bgr is None else np.asarray(image_bgr[..., ::-1], np.uint8, order="C")


def is_cut_off(content: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end, which OpenCV would replace by grey."""
    if content.startswith(b"\xff\xd8"):
        return content.find(b"\xff\xd9", content.rfind(b"\xff\xda")) < 0  # after the last scan
    return content.startswith(b"\x89PNG") and b"IEND" not in content


def size_of(content: bytes) -> tuple[int, int] | None:
    """Return width and height by a file's header; None for an unsupported format.

    Supported are JPEG, PNG, WebP, BMP, PNM and TIFF.
    """
    for magic, read_size in _HEADERS:
        if magic.match(content):
            try:
                width, height = read_size(content)
            except (struct.error, IndexError, ValueError):
                return None
            return (width, height) if width > 0 and height > 0 else None
    return None


def read_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an image file, from its first bytes; None if there is no image."""
    try:
        with path.open("rb") as file:
            return size_of(file.read(_HEADER_BYTES))
    except OSError:
        return None


def encode(image_rgb: Image, suffix: str = ".jpg", jpeg_quality: int = PICTURE_QUALITY) -> bytes:
    """Encode an image file: JPEG if the suffix says so, else PNG."""
    kind = ".jpg" if suffix.lower() in (".jpg", ".jpeg") else ".png"
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if kind == ".jpg" else []
    _, content = cv2.imencode(kind, image_bgr, options)
    return content.tobytes()


def write(path: Path, image_rgb: Image, jpeg_quality: int = PICTURE_QUALITY) -> None:
    """Write a whole image file, or leave the old one. Raises DataError."""
    with atomic_path(path) as part:
        part.write_bytes(encode(image_rgb, path.suffix, jpeg_quality))


def _scanned(jpeg: bytes, size: tuple[int, int]) -> bool:
    """Return whether decoding all scans of a JPEG would take minutes."""
    if not jpeg.startswith(b"\xff\xd8"):
        return False
    return size[0] * size[1] * jpeg.count(b"\xff\xda") > _MAX_SCANNED_PIXELS


def _claims_too_much(png: bytes) -> bool:
    """Return whether a PNG chunk claims far more bytes than the file has left."""
    at = 8
    while png.startswith(b"\x89PNG") and at + 8 <= len(png):
        at += 12 + int.from_bytes(png[at : at + 4], "big")
        if at - len(png) > _MAX_MISSING_BYTES:
            return True
    return False


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return the size in the first frame header (SOF), skipping the segments before it."""
    at = 2
    while True:
        while content[at] != 0xFF or content[at + 1] in (0x00, 0xFF):  # skip fill bytes and garbage
            at += 1
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        standalone = marker == 0x01 or 0xD0 <= marker <= 0xD7
        at += 2 if standalone else 2 + struct.unpack_from(">H", content, at + 2)[0]


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(
            content[27:30], "little"
        )
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp_size(content: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", content, 14)[0] == 12:  # the header of OS/2
        width, height = struct.unpack_from("<HH", content, 18)
        return width, height
    width, height = struct.unpack_from("<ii", content, 18)
    return width, abs(height)


def _pnm_size(content: bytes) -> tuple[int, int]:
    """Return the size in a header P1 to P6: numbers as text, with comments in between."""
    words = re.sub(rb"#[^\n]*", b"", content[2:4096]).split(None, 2)
    return int(words[0]), int(words[1])


def _tiff_size(content: bytes) -> tuple[int, int]:
    """Return the size in the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    width = height = 0
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (256, 257):
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", content, entry + 8)
            width, height = (
                (max(width, value), height) if tag == 256 else (width, max(height, value))
            )
    return width, height


_HEADERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], tuple[int, int]]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg_size),
    (
        re.compile(rb"\x89PNG\r\n\x1a\n....IHDR", re.DOTALL),
        lambda c: struct.unpack_from(">II", c, 16),
    ),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp_size),
    (re.compile(rb"BM"), _bmp_size),
    (re.compile(rb"P[1-6]\s"), _pnm_size),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff_size),
)
