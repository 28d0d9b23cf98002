"""Parse options that hold several numbers."""

from __future__ import annotations

import math

import numpy as np

from pixloc_ros.errors import ConfigError
from pixloc_ros.geometry import se3


def parse_numbers(option: str, text: str, form: str, example: str) -> list[float]:
    """Return finite numbers separated by commas, as many as the form has, e.g. `X,Y in metres`.

    Raises ConfigError that names the option, the form and the example.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(",") + 1 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{option} {text}: expected {form}, e.g. {example}")
    return numbers


def parse_mount(text: str) -> np.ndarray:
    """Return T_base_cam (4, 4) of the numbers that static_transform_publisher takes.

    Raises ConfigError if they are not a pose.
    """
    form, example = "X,Y,Z,QX,QY,QZ,QW", "1.5,0,1.4,-0.5,0.5,-0.5,0.5"
    numbers = np.array(parse_numbers("--camera-mount", text, form, example))
    try:
        return se3.from_quat_xyzw(numbers[3:], numbers[:3])
    except ValueError:
        raise ConfigError(f"--camera-mount {text}: the quaternion has no length") from None
