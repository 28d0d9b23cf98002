"""Drawing primitives: canvases, subpixel circles and lines, labels and captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Color = tuple[int, int, int]

MIN_WIDTH = 960  # smaller images are enlarged, so that text and points stay legible
MAX_WIDTH = 1600
SUBPIXEL_BITS = 4
GAP = 4
SCALE_WIDTH = 140
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK: Color = (235, 235, 235)
PAPER: Color = (24, 26, 30)


def fit(image_rgb: Image, smallest: int = MIN_WIDTH, largest: int = MAX_WIDTH) -> Image:
    """Return a copy of the image with a width between smallest and largest."""
    height, width = image_rgb.shape[:2]
    scale = min(max(width, smallest), largest) / width
    if scale == 1.0:
        return np.ascontiguousarray(image_rgb).copy()
    size = (round(width * scale), max(round(height * scale), 1))
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image_rgb, size, interpolation=method), dtype=np.uint8)


def unit(canvas: Image) -> float:
    """Return the size unit for drawing: 1 up to a width of 1200 pixels, then growing with it."""
    return max(canvas.shape[1] / 1200, 1.0)


def dim(panel: Image, share: float) -> Image:
    """Return a copy with its brightness multiplied by `share`."""
    return cv2.convertScaleAbs(panel, alpha=share)


def colors(values: NDArray, colormap: int = cv2.COLORMAP_TURBO) -> Image:
    """Return RGB colours of values in 0..1; the dark ends of the colour map are left out."""
    low, high = (0, 255) if colormap != cv2.COLORMAP_TURBO else (30, 230)
    share = np.clip(np.nan_to_num(values, nan=1.0), 0.0, 1.0)
    indices = (low + share * (high - low)).astype(np.uint8)
    if not indices.size:  # OpenCV refuses empty arrays
        return np.empty((0, 1, 3), np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(indices, colormap), cv2.COLOR_BGR2RGB)


def drawable(points: NDArray, canvas: Image) -> NDArray[np.bool_]:
    """Return which points (N, 2) OpenCV's fixed-point numbers can hold; NaN is not drawable."""
    return np.all(np.abs(points) < 4 * max(canvas.shape), axis=-1)


def _fixed(point: NDArray) -> tuple[int, int]:
    x, y = np.rint(point * (1 << SUBPIXEL_BITS)).astype(int).tolist()
    return x, y


def circle(
    canvas: Image, point: NDArray, radius: float, color: Color, thickness: int = cv2.FILLED
) -> None:
    """Draw an antialiased circle at a subpixel position; radius in pixels."""
    fixed_radius = round(radius * (1 << SUBPIXEL_BITS))
    cv2.circle(canvas, _fixed(point), fixed_radius, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def line(canvas: Image, start: NDArray, end: NDArray, color: Color) -> None:
    """Draw an antialiased line, one pixel wide, between subpixel positions."""
    cv2.line(canvas, _fixed(start), _fixed(end), color, 1, cv2.LINE_AA, SUBPIXEL_BITS)


def label(panel: Image, text: str) -> None:
    """Write text on a dark ground in the upper left corner."""
    size = 0.55 * unit(panel)
    (width, height), base = cv2.getTextSize(text, FONT, size, 1)
    cv2.rectangle(panel, (0, 0), (width + 16, height + base + 12), PAPER, cv2.FILLED)
    cv2.putText(panel, text, (8, height + 8), FONT, size, INK, 1, cv2.LINE_AA)


def join(panels: Sequence[Image]) -> Image:
    """Stack wide panels, or put narrow ones side by side, with gaps."""
    height, width = panels[0].shape[:2]
    stacked = width > 1.8 * height
    gap = np.full((GAP, width, 3) if stacked else (height, GAP, 3), PAPER, np.uint8)
    spaced = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(spaced, axis=0 if stacked else 1)


def with_caption(
    picture: Image, title: str, color: Color, caption: str, scale: tuple[str, str] | None = None
) -> Image:
    """Add a strip with title and caption below; `scale` labels the ends of the colour map."""
    width = picture.shape[1]
    strip = np.full((44, width, 3), PAPER, np.uint8)
    cv2.putText(strip, title, (12, 29), FONT, 0.7, color, 2, cv2.LINE_AA)
    left = 12 + (cv2.getTextSize(title, FONT, 0.7, 2)[0][0] + 16 if title else 0)
    right = width - 12 if scale is None else _draw_scale(strip, *scale) - 16
    text = _shorten(caption, right - left)
    cv2.putText(strip, text, (left, 28), FONT, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def _draw_scale(strip: Image, low: str, high: str) -> int:
    """Draw the colour map at the right end of the strip; return where its labels begin."""
    low_width, high_width = (cv2.getTextSize(text, FONT, 0.5, 1)[0][0] for text in (low, high))
    end = strip.shape[1] - high_width - 20
    begin = end - SCALE_WIDTH
    strip[16:28, begin:end] = colors(np.linspace(0.0, 1.0, SCALE_WIDTH)[None])
    for text, x in ((low, begin - low_width - 8), (high, end + 8)):
        cv2.putText(strip, text, (x, 27), FONT, 0.5, INK, 1, cv2.LINE_AA)
    return begin - low_width - 8


def _shorten(text: str, width: int) -> str:
    while text and cv2.getTextSize(text, FONT, 0.55, 1)[0][0] > width:
        text = text[:-4].rstrip(".") + "..." if len(text) > 4 else ""
    return text
