"""Checks of arguments that Python users give, so that a wrong one is named at once."""

from __future__ import annotations

import math
import os

import numpy as np

from pixloc_ros.errors import PixlocError, one_line


class Arguments:
    """The arguments of one public function or class; a wrong one raises `refusal`, in one line."""

    def __init__(self, of: str, refusal: type[PixlocError]) -> None:
        self._of = of
        self._refusal = refusal

    def require(self, fits: bool, name: str, value: object, expected: str) -> None:
        """Raise unless the value fits."""
        if not fits:
            given = value.__name__ if isinstance(value, type) else one_line(repr(value), 80)
            raise self._refusal(f"{self._of}: {name} is {given}, expected {expected}")

    def path(self, name: str, value: object) -> None:
        """Raise unless the value can name a file."""
        self.require(isinstance(value, str | os.PathLike), name, value, "a path")

    def positive(self, name: str, value: object) -> None:
        """Raise unless the value is a finite number above zero."""
        fits = _is_number(value) and float(value) > 0  # type: ignore[arg-type]
        self.require(fits, name, value, "a number above 0")

    def count(self, name: str, value: object) -> None:
        """Raise unless the value is a whole number above zero."""
        fits = isinstance(value, int | np.integer) and _is_number(value) and int(value) > 0
        self.require(fits, name, value, "a whole number above 0")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
