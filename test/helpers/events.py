"""Events of a drive, altered for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pixloc_ros.sensors.events import ImageEvent


def with_image(event: ImageEvent, image_rgb: np.ndarray) -> ImageEvent:
    """The same event with another image (H, W, 3)."""
    return replace(event, decode=lambda size: image_rgb)
