"""Paint what is visible in a facade's openings: glass with curtains, doors, shop windows."""

from __future__ import annotations

import cv2
import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.surfaces import Floats, rgb


def paint_pane(
    canvas: Floats, kind: str, paint: materials.Colour, rng: np.random.Generator
) -> None:
    """Paint albedo into canvas (H, W, 3): kind is window, door or shop."""
    if canvas.size == 0:
        return
    {"window": _window, "door": _door, "shop": _shop}[kind](canvas, paint, rng)


def _glass(canvas: Floats, rng: np.random.Generator) -> None:
    """Paint a dark room with a slanted reflection of the sky and the houses opposite."""
    height, width = canvas.shape[:2]
    canvas[:] = rgb([0.13, 0.16, 0.19])
    slant = np.arange(width)[None] * rng.uniform(0.3, 0.8) + np.arange(height)[:, None]
    edge = rng.uniform(0.2, 0.75) * (height + 0.5 * width)
    canvas[slant < edge] += rgb([0.16, 0.21, 0.26]) * np.float32(rng.uniform(0.4, 1.2))
    canvas *= (1 + 0.10 * materials.fractal((height, width), rng, (4, 14)))[..., None]


def _window(canvas: Floats, paint: materials.Colour, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    _glass(canvas, rng)
    if rng.uniform() < 0.65:
        _curtains(canvas, rng)
    if rng.uniform() < 0.3:
        drop = int(height * rng.uniform(0.2, 0.75))
        blind = rgb(rng.choice([[0.80, 0.76, 0.66], [0.55, 0.5, 0.42], [0.7, 0.72, 0.72]]))
        canvas[:drop] = blind * (0.75 + 0.25 * (np.arange(drop) % 4 < 2))[:, None, None]
    frame = rgb(rng.choice([[0.90, 0.88, 0.83], [0.9, 0.88, 0.83], list(paint)]))
    _frame(canvas, frame, 4)
    canvas[:, width // 2 - 2 : width // 2 + 2] = frame
    canvas[int(height * 0.3) : int(height * 0.3) + 3] = frame
    canvas[:, width // 2] *= 0.7


def _curtains(canvas: Floats, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    folds = 0.8 + 0.2 * np.sin(np.arange(width) * rng.uniform(0.7, 1.2))
    cloth = rng.choice([[0.78, 0.74, 0.66], [0.62, 0.40, 0.30], [0.5, 0.55, 0.6]])
    colour = (folds[:, None] * cloth).astype(np.float32)
    reach = int(width * rng.uniform(0.16, 0.4))
    canvas[:, :reach] = colour[:reach]
    canvas[:, width - reach :] = colour[width - reach :]
    canvas[int(height * 0.92) :] *= 0.7


def _frame(canvas: Floats, colour: Floats, thickness: int) -> None:
    canvas[:thickness] = canvas[-thickness:] = colour
    canvas[:, :thickness] = canvas[:, -thickness:] = colour
    inner = canvas[thickness:-thickness, thickness:-thickness]
    inner[:2] *= 0.6
    inner[:, :1] *= 0.6


def _door(canvas: Floats, paint: materials.Colour, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    canvas[:] = materials.tinted(1 + 0.08 * materials.noise((height, width), rng, 2), paint)
    fanlight = canvas[: int(height * 0.2)]
    _glass(fanlight, rng)
    _frame(fanlight, rgb(paint) * 1.3, 3)
    margin, middle = width // 10, width // 2
    for top, bottom in ((0.26, 0.55), (0.6, 0.94)):
        rows = slice(int(height * top), int(height * bottom))
        for columns in (slice(margin, middle - 4), slice(middle + 4, width - margin)):
            panel = canvas[rows, columns]
            panel *= 1.25
            panel[:2] *= 0.5
            panel[:, :2] *= 0.5
    canvas[:, middle - 1 : middle + 1] *= 0.35
    cv2.circle(canvas, (middle + 6, int(height * 0.6)), 3, (0.85, 0.7, 0.3), -1)


def _shop(canvas: Floats, paint: materials.Colour, rng: np.random.Generator) -> None:
    """Paint a lit shop window: shelves with goods of many colours, and posters on the glass."""
    height, width = canvas.shape[:2]
    wall = rng.choice([[0.62, 0.50, 0.34], [0.50, 0.44, 0.40], [0.42, 0.46, 0.42]])
    canvas[:] = np.float32(wall) * np.linspace(1.1, 0.5, height, dtype=np.float32)[:, None, None]
    for shelf in np.linspace(0.3, 0.96, int(rng.integers(3, 5))):
        _goods(canvas, int(height * shelf), int(height * 0.2), rng)
        canvas[int(height * shelf) : int(height * shelf) + 3] = (0.24, 0.17, 0.11)
    for _ in range(int(rng.integers(0, 3))):
        _poster(canvas, rng)
    _frame(canvas, rgb(paint) * 1.2, 5)
    if width > 110:
        canvas[:, width // 2 - 2 : width // 2 + 2] = rgb(paint) * 1.2


def _goods(canvas: Floats, base: int, tallest: int, rng: np.random.Generator) -> None:
    left = 4
    while left < canvas.shape[1] - 8:
        width, tall = int(rng.integers(4, 15)), int(tallest * rng.uniform(0.35, 1.0))
        colour = rng.uniform(0.12, 0.85, 3) * (1.0, 0.88, 0.72)
        item = canvas[max(base - tall, 0) : base, left : left + width]
        item[:] = colour
        item[: max(1, tall // 4)] *= 1.3
        item[:, -1:] *= 0.5
        left += width + int(rng.integers(1, 5))


def _poster(canvas: Floats, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    tall, wide = int(height * rng.uniform(0.22, 0.36)), int(width * rng.uniform(0.14, 0.24))
    row, column = int(rng.integers(0, height - tall)), int(rng.integers(0, width - wide))
    poster = canvas[row : row + tall, column : column + wide]
    poster[:] = rng.choice([[0.92, 0.88, 0.78], [0.85, 0.65, 0.25], [0.3, 0.5, 0.6]])
    centre = (int(rng.integers(0, wide)), int(rng.integers(0, tall)))
    cv2.circle(poster, centre, max(2, wide // 3), rng.uniform(0.1, 0.8, 3).tolist(), -1)
    for line in range(int(tall * 0.7), tall - 2, 4):
        poster[line : line + 2, 3 : int(wide * rng.uniform(0.5, 0.9))] = 0.2
