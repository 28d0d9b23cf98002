"""Draw how points move from a wrong initial pose to the result: one colour per level."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.visualization import drawing
from pixloc_ros.visualization.drawing import Color, Image

LEVEL_COLORS: tuple[Color, ...] = ((236, 96, 80), (250, 190, 60), (96, 200, 255))  # coarse to fine
START_COLOR: Color = (215, 220, 228)


def draw_travel(
    image_rgb: Image, stations: Sequence[NDArray[np.floating]], strides: Sequence[int], title: str
) -> Image:
    """Draw the paths of the points: positions (N, 2) at the initial pose and after each level."""
    panel = drawing.dim(drawing.fit(image_rgb), 0.55)
    scale = panel.shape[1] / image_rgb.shape[1]
    stations = [(s.astype(np.float64) + 0.5) * scale - 0.5 for s in stations]
    shown = np.all([drawing.drawable(s, panel) for s in stations], axis=0)
    for level in range(len(strides)):
        for begin, end in zip(stations[level][shown], stations[level + 1][shown], strict=True):
            drawing.line(panel, begin, end, LEVEL_COLORS[level])
    for begin, end in zip(stations[0][shown], stations[-1][shown], strict=True):
        drawing.circle(panel, begin, 2.2 * drawing.unit(panel), START_COLOR, thickness=1)
        drawing.circle(panel, end, 2.6 * drawing.unit(panel), LEVEL_COLORS[-1])
    return _with_legend(drawing.with_caption(panel, title, drawing.INK, ""), strides)


def _with_legend(picture: Image, strides: Sequence[int]) -> Image:
    y, x = picture.shape[0] - 16, picture.shape[1] - 130 * len(strides)
    for stride, color in zip(strides, LEVEL_COLORS, strict=True):
        cv2.putText(picture, f"stride {stride}", (x, y), drawing.FONT, 0.55, color, 1, cv2.LINE_AA)
        x += 130
    return picture
