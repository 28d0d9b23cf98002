"""How a feature map is read between its pixels, and which derivative goes with it.

All ways are separable: a few neighbours per axis with weights for the value and for the slope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixloc_ros.features.pyramid import FeatureLevel

Kernel = Callable[[Tensor], tuple[Tensor, Tensor]]


def patch(x: Tensor) -> tuple[Tensor, Tensor]:
    """Linear interpolation and its exact slope, (..., 2) each, at a fraction x (...) of a cell."""
    return torch.stack([1 - x, x], -1), torch.stack([-torch.ones_like(x), torch.ones_like(x)], -1)


def central(x: Tensor) -> tuple[Tensor, Tensor]:
    """Linear interpolation f, and (f(x + 1) - f(x - 1)) / 2 as its slope; (..., 4) each."""
    o, y = torch.zeros_like(x), 1 - x
    return torch.stack([o, y, x, o], -1), torch.stack([-y, -x, y, x], -1) / 2


def cubic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cubic convolution (Keys 1981, a = -1/2) and its exact slope; (..., 4) each."""
    y = 1 - x
    value = [_keys_far(1 + x), _keys_near(x), _keys_near(y), _keys_far(1 + y)]
    slope = [_keys_far_slope(1 + x), _keys_near_slope(x)]
    slope += [-_keys_near_slope(y), -_keys_far_slope(1 + y)]
    return torch.stack(value, -1), torch.stack(slope, -1)


def _keys_near(d: Tensor) -> Tensor:
    return (1.5 * d - 2.5) * d * d + 1


def _keys_near_slope(d: Tensor) -> Tensor:
    return (4.5 * d - 5) * d


def _keys_far(d: Tensor) -> Tensor:
    return ((-0.5 * d + 2.5) * d - 4) * d + 2


def _keys_far_slope(d: Tensor) -> Tensor:
    return (-1.5 * d + 5) * d - 4


@dataclass(frozen=True, slots=True)
class Sampling:
    """A kernel, and the border in pixels of the level in which points do not count."""

    kernel: Kernel
    taps: int
    border_px: int = 0

    def stencil(self, fraction: Tensor) -> Tensor:
        """Weights (..., 3, taps^2) of the neighbours for value, x slope, y slope."""
        (value_x, slope_x), (value_y, slope_y) = (self.kernel(f) for f in fraction.unbind(-1))
        x = torch.stack([value_x, slope_x, value_x], -2)
        y = torch.stack([value_y, value_y, slope_y], -2)
        return (y[..., :, None] * x[..., None, :]).flatten(-2)

    def read(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Values, x slopes and y slopes (..., 3, C + 1) of the map at pixels (..., 2)."""
        neighbours, fraction = level.neighbours(pixels, self.taps)
        return self.stencil(fraction) @ neighbours

    def inside(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Whether pixels (..., 2) keep the border from the edge of the map."""
        last = pixels.new_tensor([level.width - 1, level.height - 1])
        return ((pixels >= self.border_px) & (pixels <= last - self.border_px)).all(-1)


BILINEAR = Sampling(patch, taps=2)
