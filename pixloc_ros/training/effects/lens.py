"""Blur: of motion, of a lens out of focus, and of all that is small."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects.fields import scale

GAUSSIAN_RADIUS_PX = 5


def motion_blur(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Along a line of any direction, about the pixel's own place."""
    longest = config.max_motion_px * scale(images)
    length = draws.uniform(2.0, max(longest, 2.0), len(images))[:, None, None]
    angle = draws.uniform(0.0, torch.pi, len(images))[:, None, None]
    x, y = _offsets(images, int(longest / 2) + 1)
    along = (x * torch.cos(angle) + y * torch.sin(angle)).abs()
    across = (y * torch.cos(angle) - x * torch.sin(angle)).abs()
    return filtered(images, _soft_step(length / 2 - along) * _soft_step(0.5 - across))


def defocus(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A disc of confusion."""
    largest = max(config.max_defocus_px * scale(images), 0.5)
    radius = draws.uniform(0.5, largest, len(images))[:, None, None]
    x, y = _offsets(images, int(largest) + 1)
    return filtered(images, _soft_step(radius - torch.hypot(x, y)))


def soft(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A little Gaussian blur."""
    return gaussian(images, draws.uniform(0.3, 1.5, len(images)))


def gaussian(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Images (K, C, H, W) blurred by sigma_px (K,), up to a third of GAUSSIAN_RADIUS_PX."""
    x, y = _offsets(images, GAUSSIAN_RADIUS_PX)
    return filtered(images, torch.exp(-(x**2 + y**2) / (2 * sigma_px[:, None, None] ** 2)))


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Images (K, C, H, W), each with its own kernel (K, S, S) of any positive sum."""
    count, channels, height, width = images.shape
    kernels = kernels / kernels.sum((-1, -2), keepdim=True)
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    border = kernels.shape[-1] // 2
    padded = functional.pad(images, [border] * 4, mode="replicate")
    flat = padded.reshape(1, count * channels, *padded.shape[-2:])
    return functional.conv2d(flat, weights, groups=count * channels).reshape(
        count, channels, height, width
    )


def _offsets(images: Tensor, radius_px: int) -> tuple[Tensor, Tensor]:
    """x (1, S) and y (S, 1) in pixels around a kernel's middle, S = 2 radius_px + 1."""
    offsets = torch.arange(-radius_px, radius_px + 1, device=images.device, dtype=images.dtype)
    return offsets[None], offsets[:, None]


def _soft_step(inside_px: Tensor) -> Tensor:
    """Share of a pixel inside an edge so far away."""
    return (inside_px + 0.5).clamp(0, 1)
