"""Options that are several numbers in one word."""

from __future__ import annotations

import math

from pixloc_ros.errors import ConfigError


def parse_numbers(option: str, text: str, form: str, example: str) -> list[float]:
    """Finite numbers between commas, as many as the form has, as in `X,Y in metres`.

    Raises ConfigError that names the option, the form and the example.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(",") + 1 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{option} {text}: expected {form}, e.g. {example}")
    return numbers
