"""What all networks have in common: their description, the packing of their maps, their damping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Architecture:
    """Describes a network; levels are ordered from coarse to fine."""

    name: str
    strides: tuple[int, int, int]
    dims: tuple[int, int, int]  # feature channels
    size_multiple: int  # images are padded to a multiple of it, by repeating their edge
    # As in the published training: images are reduced without a low-pass filter, and reference
    # features are interpolated before they are normalised (query maps are normalised first).
    as_published: bool = False


def damping(theta: Tensor) -> Tensor:
    """Return the Levenberg-Marquardt damping per level and pose parameter, 1e-6 to 1e5 (eq. 7).

    theta: (3, 6) learned numbers.
    """
    return 10.0 ** (-6.0 + 11.0 * torch.sigmoid(theta))
