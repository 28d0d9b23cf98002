"""What the rest of the package needs to know of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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


class FeatureNetwork(Protocol):
    """Image (1, 3, H, W) in [0, 1] to packed maps (1, C + 1, h, w), coarse to fine.

    The last channel is the raw confidence: its sigmoid is the confidence.
    """

    architecture: Architecture
    theta: Tensor  # (3, 6) raw damping, coarse to fine (eq. 7)

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]: ...
