"""A contact sheet of training pairs, to see what the network will see."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common import image_files
from pixloc_ros.training.pairs import PairBatch

COLUMNS = 2  # of pairs
POINTS = 48  # drawn per pair
RADIUS_PX = 3
Image = NDArray[np.uint8]


def save_preview(batch: PairBatch, path: Path) -> None:
    """Write pairs side by side; each visible point has one colour in both of its images."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    pixels_reference, _ = batch.camera_reference.project(batch.points_reference)
    pixels_query, _ = batch.camera_query.project(in_query)
    pairs = []
    for i, visible in enumerate(batch.visible):
        chosen = visible.nonzero()[:, 0][:POINTS]
        left = _drawn(batch.reference_rgb[i], pixels_reference[i, chosen])
        right = _drawn(batch.query_rgb[i], pixels_query[i, chosen])
        pairs.append(np.hstack([left, right]))
    blank = np.zeros_like(pairs[0])
    pairs += [blank] * (-len(pairs) % COLUMNS)
    rows = [np.hstack(pairs[i : i + COLUMNS]) for i in range(0, len(pairs), COLUMNS)]
    image_files.write(path, np.vstack(rows))


def _drawn(image: Tensor, pixels: Tensor) -> Image:
    """The image (3, H, W) of range 0..1 with dots at pixels (N, 2), as bytes (H, W, 3)."""
    canvas = np.ascontiguousarray((image * 255).byte().movedim(0, -1).cpu().numpy())
    for (x, y), colour in zip(pixels.round().int().tolist(), _colours(len(pixels)), strict=True):
        cv2.circle(canvas, (x, y), RADIUS_PX, colour, 1, cv2.LINE_AA)
    return canvas


def _colours(count: int) -> list[tuple[int, int, int]]:
    hues = np.linspace(0, 179, max(count, 1), endpoint=False).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)[None]
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]][:count]
