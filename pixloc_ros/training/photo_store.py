"""Photos of one size, read once and stored as bytes on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError
from pixloc_ros.training.data_config import PhotosConfig
from pixloc_ros.training.pairs import skipped_reasons

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
THREADS = 4
Encoded = Callable[[], NDArray[np.uint8]]
Photo = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True)
class PhotoStore:
    """photos: (N, 3, H, W) uint8 on the device. skipped: number of unusable ones by reason."""

    photos: Tensor
    skipped: Counter[str]


def load_photos(
    config: PhotosConfig,
    aspect: float,
    device: torch.device | str,
    progress: Progress = silent,
) -> PhotoStore:
    """Read config.path; each photo is cut to `aspect` (width / height), long ones into several.

    If memory is short, only every k-th photo is used. Raises DataError if none is usable.
    """
    width = config.stored_width_px
    shape = (round(width / aspect), width)
    room = int(config.max_gib * 2**30 / (3 * shape[0] * shape[1]))
    found = _find(config.path)
    taken = found if len(found) <= room else _spread(found, room)
    skipped = Counter({"over max_gib": len(found) - len(taken)})
    cut = partial(_read, shape=shape, min_side_px=config.min_side_px)
    with ThreadPoolExecutor(THREADS) as pool:
        reading = [pool.submit(cut, encoded) for encoded in taken]
        waiting = progress(reading, "Reading photos", len(reading))
        results = [read.result() for read in waiting]
    skipped.update(result for result in results if isinstance(result, str))
    tiles = [tile for result in results if not isinstance(result, str) for tile in result]
    if not tiles:
        raise DataError(
            f"{config.path}: no photo of {len(found)} can be used "
            f"({skipped_reasons(skipped)}); photos are read from {', '.join(sorted(SUFFIXES))}"
        )
    return PhotoStore(_on_device(tiles[:room], device), +skipped)


def _on_device(tiles: Sequence[Photo], device: torch.device | str) -> Tensor:
    """Copy tiles to the device (N, 3, H, W), without a second copy of all of them on the CPU."""
    height, width, _ = tiles[0].shape
    photos = torch.empty(len(tiles), 3, height, width, dtype=torch.uint8, device=device)
    for photo, tile in zip(photos, tiles, strict=True):
        photo.copy_(torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1))
    return photos


def _find(path: Path) -> list[Encoded]:
    """Return one function per photo that reads its bytes."""
    if path.suffix == ".npz":
        return _in_archive(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of photos, or .npz with arrays data and off")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    return [partial(_bytes, file) for file in files]


def _bytes(file: Path) -> NDArray[np.uint8]:
    return np.fromfile(file, np.uint8)


def _in_archive(path: Path) -> list[Encoded]:
    try:
        with np.load(path) as archive:
            data, offsets = archive["data"], archive["off"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} cannot be used ({error}); it needs data (bytes of all JPEGs, uint8) and off "
            f"(where each begins, and the end)"
        ) from None
    return [partial(data.__getitem__, slice(begin, end)) for begin, end in pairwise(offsets)]


def _spread(found: Sequence[Encoded], count: int) -> list[Encoded]:
    return [found[i] for i in np.linspace(0, len(found) - 1, count).round().astype(int)]


def _read(encoded: Encoded, shape: tuple[int, int], min_side_px: int) -> list[Photo] | str:
    """Return the tiles of one photo, or why it is unusable."""
    try:
        content = encoded()
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    except (OSError, cv2.error):
        bgr = None
    if bgr is None:
        return "unreadable"
    if min(bgr.shape[:2]) < min_side_px:
        return "tiny"
    return _tiles(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), shape)


def _tiles(photo: Photo, shape: tuple[int, int]) -> list[Photo]:
    """Scale the photo to cover shape (rows, columns), and cut it along its longer side."""
    factor = max(shape[0] / photo.shape[0], shape[1] / photo.shape[1])
    size = [max(round(n * factor), least) for n, least in zip(photo.shape, shape, strict=False)]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(photo, (size[1], size[0]), interpolation=how)
    spare = max(size[0] - shape[0], size[1] - shape[1])
    rows = size[0] > shape[0]
    count = round(spare / shape[0 if rows else 1]) + 1
    starts = np.linspace(0, spare, count) if count > 1 else [spare / 2]
    corners = [(int(s), 0) if rows else (0, int(s)) for s in starts]
    return [np.asarray(scaled[y : y + shape[0], x : x + shape[1]], np.uint8) for y, x in corners]
