"""Brightness instead of features: what direct alignment is without learning."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.compact import STRIDES

CERTAIN = 10.0  # its sigmoid is 1


class PhotometricNet(nn.Module):
    """Image (B, 3, H, W) in 0..1 to packed maps as those of `CompactNet`.

    Brightness b is the unit vector (cos pi b, sin pi b), whose squared distance to another grows
    with the squared difference of brightness. Confidence is 1.
    """

    architecture = Architecture("photometric", STRIDES, (2, 2, 2), size_multiple=32)

    def __init__(self) -> None:
        super().__init__()
        self.grey = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.grey.weight, 1 / 3)
        self.theta = nn.Parameter(torch.full((3, 6), -1.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        brightness = self.grey(image)
        coarse, middle, fine = (_packed(F.avg_pool2d(brightness, stride)) for stride in STRIDES)
        return coarse, middle, fine


def _packed(brightness: Tensor) -> Tensor:
    angle = math.pi * brightness
    return torch.cat([angle.cos(), angle.sin(), torch.full_like(angle, CERTAIN)], 1)
