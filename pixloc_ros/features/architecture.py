"""What all networks share: their outline, how their maps are packed, their damping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
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


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features (B, C, H, W) and confidence (B, 1, H, W) in 0..1 of one packed map."""
    return F.normalize(packed[:, :-1], dim=1), torch.sigmoid(packed[:, -1:])


def damping(theta: Tensor) -> Tensor:
    """Levenberg-Marquardt damping per level and pose parameter, 1e-6 to 1e5 (eq. 7)."""
    return 10.0 ** (-6.0 + 11.0 * torch.sigmoid(theta))
