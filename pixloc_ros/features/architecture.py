"""What the rest of the package needs to know of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """Levels are coarse to fine."""

    name: str
    strides: tuple[int, int, int]
    dims: tuple[int, int, int]  # feature channels
    size_multiple: int  # images are padded to it, by their edge
    # As the weights were trained: images reduced without a low-pass filter, and reference features
    # interpolated before they are normalised (query maps are normalised first).
    as_published: bool = False
