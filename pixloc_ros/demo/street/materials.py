"""Procedural materials: albedo images (H, W, 3) float32 in 0..1, never repeating, from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.demo.street.surfaces import Floats, Image, rgb

Shape = tuple[int, int]
Colour = Sequence[float] | NDArray[np.floating]
COARSE_PX = 8


def noise(shape: Shape, rng: np.random.Generator, cell_px: float) -> Floats:
    """Return smooth noise (H, W), zero mean, about unit deviation, with blobs of cell_px pixels."""
    height, width = shape
    grid_shape = (int(height / cell_px) + 4, int(width / cell_px) + 4)
    grid = rng.standard_normal(grid_shape, dtype=np.float32)
    if cell_px <= 1:
        return grid[:height, :width]
    full = (int(np.ceil(grid_shape[1] * cell_px)), int(np.ceil(grid_shape[0] * cell_px)))
    smooth = cv2.resize(grid, full, interpolation=cv2.INTER_LINEAR)
    top, left = int(cell_px), int(cell_px)
    return smooth[top : top + height, left : left + width]


def fractal(shape: Shape, rng: np.random.Generator, cells_px: Sequence[float]) -> Floats:
    """Return noise (H, W) summed over several blob sizes, about unit deviation."""
    total = np.zeros(shape, np.float32)
    coarse = [cell_px / 4 for cell_px in cells_px if cell_px >= COARSE_PX]
    for cell_px in cells_px:
        if cell_px < COARSE_PX:
            total += noise(shape, rng, cell_px)
    if coarse:  # a quarter of the resolution suffices for these
        small = (shape[0] // 4 + 2, shape[1] // 4 + 2)
        layer = np.sum([noise(small, rng, cell_px) for cell_px in coarse], axis=0)
        total += cv2.resize(layer, (4 * small[1], 4 * small[0]))[: shape[0], : shape[1]]
    total *= np.float32(1.25 / np.sqrt(len(cells_px)))
    return total


def tinted(level: Floats, colour: Colour) -> Floats:
    """Multiply a grey level (H, W) by a colour."""
    return level[..., None] * rgb(colour)


def plaster(shape: Shape, rng: np.random.Generator, colour: Colour) -> Floats:
    """Return trowelled, weathered render with rain streaks and patches of older paint."""
    level = (
        1.0 + 0.026 * fractal(shape, rng, (1, 2.5, 6)) + 0.055 * fractal(shape, rng, (24, 90, 260))
    )
    streaks = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (3, 151), 0.8, 45)
    level += 0.35 * streaks
    worn = np.clip(fractal(shape, rng, (5, 18, 60)) - 1.2, 0, 0.5)
    level -= 0.14 * worn
    return tinted(level, colour)


def brick(shape: Shape, rng: np.random.Generator, colour: Colour, texels_per_m: float) -> Floats:
    """Return running-bond brickwork: every brick has its own tone, mortar joints are pale."""
    height, width = shape
    rows = (np.arange(height) / (0.085 * texels_per_m)).astype(int)
    offset = 0.5 * (rows % 2)
    along = np.arange(width)[None] / (0.26 * texels_per_m) + offset[:, None]
    columns = along.astype(int)
    tones = rng.normal(1.0, 0.13, (rows.max() + 1, columns.max() + 1)).astype(np.float32)
    hues = rng.normal(0.0, 0.05, tones.shape).astype(np.float32)
    level, hue = tones[rows[:, None], columns], hues[rows[:, None], columns]
    wall = tinted(level, colour)
    wall[..., 0] += 0.5 * hue
    wall[..., 2] -= 0.4 * hue
    bed = np.diff(rows, prepend=-1) > 0
    joint = (np.diff(columns, axis=1, prepend=-1) > 0) | bed[:, None]
    wall[joint] = wall[joint] * 0.35 + 0.65 * rgb([0.66, 0.62, 0.56])
    weather = 1.0 + 0.05 * fractal(shape, rng, (2, 5)) + 0.06 * fractal(shape, rng, (40, 150))
    return wall * weather[..., None]


def blocks(
    shape: Shape, rng: np.random.Generator, colour: Colour, size_px: tuple[float, float]
) -> Floats:
    """Return cut stone in courses: size_px = (width, height) of a stone, darker joints."""
    height, width = shape
    rows = (np.arange(height) / size_px[1]).astype(int)
    columns = (np.arange(width)[None] / size_px[0] + 0.5 * (rows % 2)[:, None]).astype(int)
    tones = rng.normal(1.0, 0.07, (rows.max() + 1, columns.max() + 1)).astype(np.float32)
    level = tones[rows[:, None], columns] + 0.06 * fractal(shape, rng, (1, 3, 10, 60))
    bed = np.diff(rows, prepend=-1) > 0
    upright = np.diff(columns, axis=1, prepend=-1) > 0
    level[upright | bed[:, None]] *= 0.68
    return tinted(level, colour)


def roof_tiles(shape: Shape, rng: np.random.Generator, colour: Colour) -> Floats:
    """Return overlapping tiles in rows of 12 texels, each darker under the next row's edge."""
    height, width = shape
    rows = np.arange(height) // 12
    columns = (np.arange(width)[None] + 5 * (rows % 2)[:, None]) // 10
    tones = rng.normal(1.0, 0.12, (rows.max() + 1, columns.max() + 1)).astype(np.float32)
    level = tones[rows[:, None], columns] * (0.72 + 0.03 * (np.arange(height) % 12))[:, None]
    level = level * (1 + 0.08 * fractal(shape, rng, (3, 30, 90)))
    return tinted(level.astype(np.float32), colour)


def plain(rng: np.random.Generator, colour: Colour, shape: Shape = (24, 24)) -> Floats:
    """Return a small patch of painted or cast material with slight wear."""
    return tinted(1.0 + 0.06 * fractal(shape, rng, (1, 4, 12)), colour)


def foliage(rng: np.random.Generator, size_px: int, colour: Colour) -> tuple[Floats, Image]:
    """Return a clump of leaves: colour (size, size, 3) and ragged alpha (size, size)."""
    canvas = np.zeros((size_px, size_px, 3), np.float32) + rgb(colour) * 0.45
    alpha = np.zeros((size_px, size_px), np.uint8)
    count = 420
    radius = np.sqrt(rng.uniform(0, 1, count)) * 0.45 * size_px
    turn = rng.uniform(0, 2 * np.pi, count)
    centres = size_px / 2 + np.column_stack([radius * np.cos(turn), radius * np.sin(turn)])
    tones = np.linspace(0.45, 1.35, count) + rng.normal(0, 0.15, count)
    for centre, tone in zip(centres, tones, strict=True):
        axes = (int(rng.uniform(3, 8) * size_px / 128), int(rng.uniform(2, 4) * size_px / 128))
        leaf = (centre.astype(int).tolist(), axes, float(rng.uniform(0, 180)), 0, 360)
        shade = rgb(colour) * tone + rng.normal(0, 0.02, 3)
        cv2.ellipse(canvas, *leaf, shade.tolist(), -1)
        cv2.ellipse(alpha, *leaf, 255, -1)
    return canvas, alpha


def twigs(rng: np.random.Generator, size_px: int) -> tuple[Floats, Image]:
    """Return bare branches: colour (size, size, 3) and alpha (size, size)."""
    alpha = np.zeros((size_px, size_px), np.uint8)
    for _ in range(16):
        at, turn = np.full(2, size_px / 2) + rng.normal(0, 0.1 * size_px, 2), rng.uniform(0, 6.28)
        for length in size_px * np.array([0.2, 0.15, 0.1]):
            to = at + length * np.array([np.cos(turn), np.sin(turn)])
            cv2.line(alpha, at.astype(int).tolist(), to.astype(int).tolist(), 255, 1)
            at, turn = to, turn + rng.normal(0, 0.5)
    return plain(rng, (0.30, 0.25, 0.21), alpha.shape), alpha


def text(canvas: Floats, words: str, colour: Colour) -> None:
    """Write words centred on canvas (H, W, 3), as large as they fit."""
    height, width = canvas.shape[:2]
    font, thickness = cv2.FONT_HERSHEY_DUPLEX, max(1, height // 16)
    (unit_width, unit_height), _ = cv2.getTextSize(words, font, 1.0, 1)
    scale = min(0.84 * width / unit_width, 0.56 * height / unit_height)
    (text_width, text_height), _ = cv2.getTextSize(words, font, scale, thickness)
    corner = ((width - text_width) // 2, (height + text_height) // 2)
    ink = np.zeros((height, width), np.uint8)
    cv2.putText(ink, words, corner, font, scale, 255, thickness, cv2.LINE_AA)
    share = ink[..., None].astype(np.float32) / 255.0
    canvas *= 1 - share
    canvas += share * rgb(colour)
