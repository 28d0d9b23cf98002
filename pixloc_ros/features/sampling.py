"""A feature map, and the only way to read it between its pixels.

A stencil weights a pixel's neighbours to give the value and the slopes along x and y. Map building,
residuals and training all use it, so what they read is consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Stencil = Callable[[Tensor], Tensor]  # position in the cell (..., 2) to weights (..., 3, taps^2)
Kernel = Callable[[Tensor], tuple[Tensor, Tensor]]  # along one axis: weights of value and slope
BLOCK_ELEMENTS = 2**20  # read at a time: 4 MB stay in the cache, and their memory is reused


@dataclass(frozen=True, slots=True)
class FeatureLevel:
    """One level of a pyramid: its map stored as one row per pixel, ready to be gathered.

    It may hold the maps of B images, one after the other. Pixels (K, N, 2) are then read in image
    k, or in the image that `image` gives for k.
    """

    rows: Tensor  # (B * H * W, C + 1): unit feature and confidence
    height: int
    width: int
    stride: int
    image_size: Tensor  # (2,) width and height of the network's image, without padding
    norms: Tensor | None = None  # (B * H * W,) of the raw features, if references need them
    image: Tensor | None = None  # (K,) image that each of the K problems reads; None: image k

    def __getitem__(self, index: Tensor) -> FeatureLevel:
        """Return the level for some of the K problems, each of which reads its own image."""
        image = torch.arange(self._images, device=self.rows.device)
        return replace(self, image=(image if self.image is None else self.image)[index])

    def clip(self, size: Tensor) -> Tensor:
        """Limit the width and height (..., 2) of an image at this stride to what the map covers.

        Pooling may drop the last rows and columns, which are then missing in the map.
        """
        width, height = size.unbind(-1)
        return torch.stack([width.clamp(max=self.width), height.clamp(max=self.height)], -1)

    def index(self, pixels: Tensor, taps: int) -> tuple[Tensor, Tensor]:
        """Return the rows (..., taps^2) around pixels, and the positions (..., 2) in the cells.

        pixels: (..., 2) of this level. Beyond the border the map is continued by its edge.
        """
        last = pixels.new_tensor([self.width - 1, self.height - 1])
        pixels = pixels.nan_to_num()
        base = torch.minimum(pixels.floor().clamp(min=0), last - 1)
        fraction = (pixels - base).clamp(0, 1)
        if taps == 2:
            first = (base[..., 1] * self.width + base[..., 0]).long()
            offsets = first.new_tensor([0, 1, self.width, self.width + 1])
            return self._of_own_image(first[..., None] + offsets), fraction
        steps = torch.arange(taps, device=pixels.device) - (taps // 2 - 1)
        x = (base[..., :1].long() + steps).clamp(0, self.width - 1)
        y = (base[..., 1:].long() + steps).clamp(0, self.height - 1)
        index = (y[..., :, None] * self.width + x[..., None, :]).flatten(-2)
        return self._of_own_image(index), fraction

    @property
    def _images(self) -> int:
        return len(self.rows) // (self.height * self.width)

    def _of_own_image(self, index: Tensor) -> Tensor:
        """Convert row numbers within each image to row numbers (K, N, taps^2) of this level."""
        if self._images == 1:
            return index
        image = (
            torch.arange(self._images, device=index.device) if self.image is None else self.image
        )
        return index + image[:, None, None] * (self.height * self.width)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A stencil, and the width of the border, in pixels of the level, where points are ignored."""

    stencil: Stencil
    taps: int
    border_px: int = 0

    def read(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Return value, x slope and y slope (..., 3, C + 1) of the map at pixels (..., 2)."""
        index, fraction = level.index(pixels, self.taps)
        return _weighted_sums(level, index, self.stencil(fraction))

    def values(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Return only the values (..., C + 1) that `read` gives at pixels (..., 2)."""
        index, fraction = level.index(pixels, self.taps)
        return _weighted_sums(level, index, self.stencil(fraction)[..., :1, :])[..., 0, :]

    def unit_features(self, level: FeatureLevel, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit features (..., C) and confidences (...) at pixels (..., 2), for references.

        If the level has the norms of its raw features, raw features are interpolated, as published.
        """
        index, fraction = level.index(pixels, self.taps)
        weights = self.stencil(fraction)[..., :1, :]
        if level.norms is not None:
            weights = torch.cat([weights * level.norms[index][..., None, :], weights], -2)
        rows = _weighted_sums(level, index, weights)
        return F.normalize(rows[..., 0, :-1], dim=-1), rows[..., -1, -1]

    def inside(self, level: FeatureLevel, pixels: Tensor) -> Tensor:
        """Return whether pixels (..., 2) are inside the map by at least the border."""
        last = pixels.new_tensor([level.width - 1, level.height - 1])
        return ((pixels >= self.border_px) & (pixels <= last - self.border_px)).all(-1)


def _weighted_sums(level: FeatureLevel, index: Tensor, weights: Tensor) -> Tensor:
    """Return sums (..., M, C + 1) of the rows `index` (..., T), weighted by (..., M, T)."""
    index = index[..., None, :].expand(weights.shape)
    # Gathers and sums in one pass, in half the time of a gather and a product.
    sums = F.embedding_bag(
        index.flatten(0, -2), level.rows, mode="sum", per_sample_weights=weights.flatten(0, -2)
    )
    return sums.unflatten(0, weights.shape[:-1])


def bilinear(fraction: Tensor) -> Tensor:
    """Return the weights of bilinear interpolation and of its exact slopes within the cell."""
    x, y = fraction.unbind(-1)
    u, v = 1 - x, 1 - y
    weights = [u * v, x * v, u * y, x * y, -v, v, -y, y, -u, -x, u, x]
    return torch.stack(weights, -1).unflatten(-1, (3, 4))


def separable(kernel: Kernel) -> Stencil:
    """Make a stencil that applies a kernel along both axes."""

    def stencil(fraction: Tensor) -> Tensor:
        (value_x, slope_x), (value_y, slope_y) = (kernel(f) for f in fraction.unbind(-1))
        x = torch.stack([value_x, slope_x, value_x], -2)
        y = torch.stack([value_y, value_y, slope_y], -2)
        return (y[..., :, None] * x[..., None, :]).flatten(-2)

    return stencil


def central(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights of linear interpolation f and of (f(x + 1) - f(x - 1)) / 2; (..., 4) each."""
    o, y = torch.zeros_like(x), 1 - x
    return torch.stack([o, y, x, o], -1), torch.stack([-y, -x, y, x], -1) / 2


def cubic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights of cubic convolution (Keys 1981, a = -1/2) and of its slope; (..., 4) each."""
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


BILINEAR = Sampling(bilinear, taps=2)
