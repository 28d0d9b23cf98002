"""Arrange labelled images in a grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pixloc_ros.visualization import drawing
from pixloc_ros.visualization.drawing import Image


def contact_sheet(pictures: Mapping[str, Image], columns: int, width_px: int) -> Image:
    """Return images of one size with their names, row by row."""
    panels = []
    for name, picture in pictures.items():
        panel = drawing.fit(picture, width_px, width_px)
        drawing.label(panel, name)
        panels.append(panel)
    panels += [np.full_like(panels[0], drawing.PAPER)] * (-len(panels) % columns)
    rows = [np.hstack(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    return np.vstack(rows)
