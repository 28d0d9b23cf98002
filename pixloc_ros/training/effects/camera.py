"""Effects of the camera: motion blur, defocus, colours, noise, and occluders."""

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
    """Blur along a line in any direction through the pixel."""
    longest = config.max_motion_px * scale(images)
    length = draws.uniform(2.0, max(longest, 2.0), len(images))[:, None, None]
    angle = draws.uniform(0.0, torch.pi, len(images))[:, None, None]
    x, y = offsets_px(images, int(longest / 2) + 1)
    along = (x * torch.cos(angle) + y * torch.sin(angle)).abs()
    across = (y * torch.cos(angle) - x * torch.sin(angle)).abs()
    return filtered(images, _soft_step(length / 2 - along) * _soft_step(0.5 - across))


def defocus(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Blur by a disc of confusion."""
    largest = max(config.max_defocus_px * scale(images), 0.5)
    radius = draws.uniform(0.5, largest, len(images))[:, None, None]
    x, y = offsets_px(images, int(largest) + 1)
    return filtered(images, _soft_step(radius - torch.hypot(x, y)))


def soft(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Apply a slight Gaussian blur."""
    return gaussian(images, draws.uniform(0.3, 1.5, len(images)))


def _soft_step(inside_px: Tensor) -> Tensor:
    """Return how much of a pixel at this distance inside an edge is covered."""
    return (inside_px + 0.5).clamp(0, 1)


def occluders(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add boxes and ellipses that show a mirrored piece of another image."""
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
    """Apply a curve that is not even monotone: edges keep their places and lose their signs."""
    strength = scalars(images, 0.05, 0.25, draws)
    waves = scalars(images, 0.5, 1.5, draws)
    phase = scalars(images, 0.0, 2 * torch.pi, draws) + 0.3 * draws.normal(len(images), 3, 1, 1)
    return images + strength * torch.sin(2 * torch.pi * waves * images + phase)


def colour(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Change white balance, colour mixing, saturation, contrast, brightness and gamma."""
    count = len(images)
    mixing = torch.eye(3, device=images.device) + 0.06 * draws.normal(count, 3, 3)
    gains = torch.exp(0.12 * draws.normal(count, 3, 1))
    mixed = torch.einsum("bij,bjhw->bihw", gains * mixing, images)
    # Above 1 means grey, because some cameras have no colour.
    saturation = 1 - scalars(images, -0.6, 1.15, draws).clamp(0, 1)
    mixed = saturation * mixed + (1 - saturation) * grey(mixed)
    contrast = torch.exp(0.25 * draws.normal(count, 1, 1, 1))
    # The mean of the logarithm, because lamps must not decide the pivot of a dark image's contrast.
    pivot = (mixed.clamp(min=0) + 0.01).log().mean((1, 2, 3), keepdim=True).exp()
    brightness = pivot * (1 + 0.15 * draws.normal(count, 1, 1, 1))
    stretched = brightness + contrast * (mixed - pivot)
    gamma = torch.exp(config.gamma_sigma * draws.normal(count, 1, 1, 1))
    return stretched.clamp(1e-4, 1) ** gamma


def noise(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add sensor noise, equal everywhere, and photon noise, which grows with the light."""
    deviation = config.max_noise * scalars(images, 0.0, 1.0, draws) ** 2
    photons = scalars(images, 0.0, 1.0, draws)
    spread = deviation * torch.sqrt(1 - photons + photons * images)
    return images + spread * draws.normal(*images.shape)
