"""Small images and the messages that hold them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np

WIDTH, HEIGHT = 6, 4
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)


def picture(
    array: np.ndarray, encoding: str, padding: int = 0, is_bigendian: int = 0
) -> SimpleNamespace:
    """The fields of a sensor_msgs/Image whose rows are followed by `padding` bytes."""
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=data.shape[1],
        data=data.reshape(-1),
    )
