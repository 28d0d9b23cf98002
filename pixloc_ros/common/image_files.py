"""Image files as RGB arrays.

They are never turned by their EXIF orientation: calibrations, as COLMAP's, are of the pixels as
they are stored.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import atomic_path

Image = NDArray[np.uint8]  # (H, W, 3)

_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read(path: Path) -> Image | None:
    """RGB (H, W, 3) of a file; None where it is missing or holds no image."""
    return decode(path.read_bytes()) if path.is_file() else None


def decode(content: bytes) -> Image | None:
    """RGB (H, W, 3) of a file's content; None where it is no image."""
    try:
        image_bgr = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    except cv2.error:  # no data at all, or a header that promises too many pixels
        return None
    return None if image_bgr is None else np.asarray(image_bgr[..., ::-1], np.uint8, order="C")


def encode(image_rgb: Image, suffix: str = ".jpg", jpeg_quality: int = 92) -> bytes:
    """Content of an image file: JPEG where the suffix says so, else PNG."""
    kind = ".jpg" if suffix.lower() in (".jpg", ".jpeg") else ".png"
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(kind, image_bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    return content.tobytes()


def write(path: Path, image_rgb: Image, jpeg_quality: int = 92) -> None:
    """Write an image file whole, or leave what was there; raises DataError."""
    with atomic_path(path) as part:
        part.write_bytes(encode(image_rgb, path.suffix, jpeg_quality))
