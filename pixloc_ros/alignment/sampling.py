"""How a feature map is read between its pixels, and which derivative goes with it.

A stencil gives the neighbours' weights for the value and for the slopes along x and y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixloc_ros.features.pyramid import FeatureLevel

Stencil = Callable[[Tensor], Tensor]  # fraction of the cell (..., 2) to (..., 3, taps^2)
Kernel = Callable[[Tensor], tuple[Tensor, Tensor]]  # the same along one axis: value and slope
BLOCK_ELEMENTS = 2**20  # read at a time: results of 4 MB stay in the cache and in reused memory


def bilinear(fraction: Tensor) -> Tensor:
    """Bilinear interpolation and its exact slopes within the cell."""
    x, y = fraction.unbind(-1)
    u, v = 1 - x, 1 - y
    weights = [u * v, x * v, u * y, x * y, -v, v, -y, y, -u, -x, u, x]
    return torch.stack(weights, -1).unflatten(-1, (3, 4))


def separable(kernel: Kernel) -> Stencil:
    """The stencil that uses a kernel along both axes."""

    def stencil(fraction: Tensor) -> Tensor:
        (value_x, slope_x), (value_y, slope_y) = (kernel(f) for f in fraction.unbind(-1))
        x = torch.stack([value_x, slope_x, value_x], -2)
        y = torch.stack([value_y, value_y, slope_y], -2)
        return (y[..., :, None] * x[..., None, :]).flatten(-2)

    return stencil


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
    """A stencil, and the border in pixels of the level in which points do not count."""

    stencil: Stencil
    taps: int
    border_px: int = 0

    def read(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Values, x slopes and y slopes (..., 3, C + 1) of the map at pixels (..., 2)."""
        index, fraction = level.index(pixels, self.taps)
        weights = self.stencil(fraction).flatten(0, -2)
        index = index[..., None, :].expand(*index.shape[:-1], 3, -1).reshape(weights.shape)
        # Gathers and sums in one pass: half the time of a gather and a product.
        rows = F.embedding_bag(index, level.rows, mode="sum", per_sample_weights=weights)
        return rows.view(*pixels.shape[:-1], 3, level.rows.shape[1])

    def inside(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Whether pixels (..., 2) keep the border from the edge of the map."""
        last = pixels.new_tensor([level.width - 1, level.height - 1])
        return ((pixels >= self.border_px) & (pixels <= last - self.border_px)).all(-1)


BILINEAR = Sampling(bilinear, taps=2)
