"""Smooth random fields, coordinates and filters for the effects."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.training.draws import RandomDraws

# Effects in pixels refer to images of this width, and scale with it.
REFERENCE_WIDTH_PX = 512.0
GAUSSIAN_RADIUS_PX = 5


def smooth(images: Tensor, cells: tuple[int, int], draws: RandomDraws) -> Tensor:
    """Return about standard normal noise (K, 1, H, W) with `cells` (rows, columns) blobs."""
    coarse = draws.normal(len(images), 1, *cells)
    return functional.interpolate(
        coarse, size=images.shape[-2:], mode="bicubic", align_corners=False
    )


def scalars(
    images: Tensor, low: float, high: float, draws: RandomDraws, channels: int = 1
) -> Tensor:
    """Return numbers (K, channels, 1, 1), uniform in [low, high), for images (K, 3, H, W)."""
    return draws.uniform(low, high, len(images), channels, 1, 1)


def coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, W) and y (H, 1) of the pixels, -1..1 from left to right and top to bottom."""
    height, width = images.shape[-2:]
    x = torch.linspace(-1, 1, width, device=images.device)
    y = torch.linspace(-1, 1, height, device=images.device)
    return x[None], y[:, None]


def grey(images: Tensor) -> Tensor:
    """Return luma (K, 1, H, W), with the weights of BT.601."""
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def scale(images: Tensor) -> float:
    """Return the factor for sizes in pixels."""
    return images.shape[-1] / REFERENCE_WIDTH_PX


def gaussian(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur images (K, C, H, W) by sigma_px (K,), at most a third of GAUSSIAN_RADIUS_PX."""
    x, y = offsets_px(images, GAUSSIAN_RADIUS_PX)
    return filtered(images, torch.exp(-(x**2 + y**2) / (2 * sigma_px[:, None, None] ** 2)))


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter images (K, C, H, W), each by its own kernel (K, S, S) of any positive sum."""
    count, channels, height, width = images.shape
    kernels = kernels / kernels.sum((-1, -2), keepdim=True)
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    border = kernels.shape[-1] // 2
    padded = functional.pad(images, [border] * 4, mode="replicate")
    flat = padded.reshape(1, count * channels, *padded.shape[-2:])
    return functional.conv2d(flat, weights, groups=count * channels).reshape(
        count, channels, height, width
    )


def offsets_px(images: Tensor, radius_px: int) -> tuple[Tensor, Tensor]:
    """Return x (1, S) and y (S, 1) in pixels from a kernel's centre, S = 2 radius_px + 1."""
    offsets = torch.arange(-radius_px, radius_px + 1, device=images.device, dtype=images.dtype)
    return offsets[None], offsets[:, None]
