"""What a camera does: blur of motion and focus, colours, noise, and what stands in its way."""

from __future__ import annotations

import torch
from torch import Tensor

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects.fields import (
    coordinates,
    filtered,
    gaussian,
    grey,
    offsets_px,
    scalars,
    scale,
)

PIECES = 3


def motion_blur(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Along a line of any direction, about the pixel's own place."""
    longest = config.max_motion_px * scale(images)
    length = draws.uniform(2.0, max(longest, 2.0), len(images))[:, None, None]
    angle = draws.uniform(0.0, torch.pi, len(images))[:, None, None]
    x, y = offsets_px(images, int(longest / 2) + 1)
    along = (x * torch.cos(angle) + y * torch.sin(angle)).abs()
    across = (y * torch.cos(angle) - x * torch.sin(angle)).abs()
    return filtered(images, _soft_step(length / 2 - along) * _soft_step(0.5 - across))


def defocus(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A disc of confusion."""
    largest = max(config.max_defocus_px * scale(images), 0.5)
    radius = draws.uniform(0.5, largest, len(images))[:, None, None]
    x, y = offsets_px(images, int(largest) + 1)
    return filtered(images, _soft_step(radius - torch.hypot(x, y)))


def soft(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A little Gaussian blur."""
    return gaussian(images, draws.uniform(0.3, 1.5, len(images)))


def _soft_step(inside_px: Tensor) -> Tensor:
    """Share of a pixel inside an edge so far away."""
    return (inside_px + 0.5).clamp(0, 1)


def occluders(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Boxes and ellipses that show a piece of another image, mirrored."""
    other = images.roll(1, 0).flip(-1)
    x, y = coordinates(images)
    pieces = scalars(images, 0.0, PIECES, draws)
    for index in range(PIECES):
        half_x, half_y = (scalars(images, *config.occluder_share, draws) for _ in "xy")
        dx = (x - scalars(images, -1.0, 1.0, draws)).abs() / half_x
        dy = (y - scalars(images, -1.0, 1.0, draws)).abs() / half_y
        box = scalars(images, 0.0, 1.0, draws) < 0.5
        covered = torch.where(box, torch.maximum(dx, dy), torch.hypot(dx, dy)) < 1
        images = torch.where(covered & (index < pieces), other, images)
    return images


def tone(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A curve that is not even monotone: edges keep their places and lose their signs."""
    strength = scalars(images, 0.05, 0.25, draws)
    waves = scalars(images, 0.5, 1.5, draws)
    phase = scalars(images, 0.0, 2 * torch.pi, draws) + 0.3 * draws.normal(len(images), 3, 1, 1)
    return images + strength * torch.sin(2 * torch.pi * waves * images + phase)


def colour(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """White balance, mixing of colours, desaturation, contrast, brightness and gamma."""
    count = len(images)
    mixing = torch.eye(3, device=images.device) + 0.06 * draws.normal(count, 3, 3)
    gains = torch.exp(0.12 * draws.normal(count, 3, 1))
    mixed = torch.einsum("bij,bjhw->bihw", gains * mixing, images)
    # Above 1 means grey: a share of all cameras has no colour.
    saturation = 1 - scalars(images, -0.6, 1.15, draws).clamp(0, 1)
    mixed = saturation * mixed + (1 - saturation) * grey(mixed)
    contrast = torch.exp(0.25 * draws.normal(count, 1, 1, 1))
    # Of the logarithm, as lamps must not decide what a dark image turns around.
    pivot = (mixed.clamp(min=0) + 0.01).log().mean((1, 2, 3), keepdim=True).exp()
    brightness = pivot * (1 + 0.15 * draws.normal(count, 1, 1, 1))
    stretched = brightness + contrast * (mixed - pivot)
    gamma = torch.exp(config.gamma_sigma * draws.normal(count, 1, 1, 1))
    return stretched.clamp(1e-4, 1) ** gamma


def noise(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Of electronics, the same everywhere, and of photons, which grows with the light."""
    deviation = config.max_noise * scalars(images, 0.0, 1.0, draws) ** 2
    photons = scalars(images, 0.0, 1.0, draws)
    spread = deviation * torch.sqrt(1 - photons + photons * images)
    return images + spread * draws.normal(*images.shape)
