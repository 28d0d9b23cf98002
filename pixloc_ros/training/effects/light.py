"""Light of the scene: uneven, in shadow, or gone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects.fields import coordinates, scalars, smooth

SHADOW_EDGES = 3
LAMPS = 6
LAMP_REDUCTION = 2  # lamps are drawn in a smaller image


def illumination(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """A smooth field of light and dark."""
    return images * torch.exp(scalars(images, 0.1, 0.7, draws) * smooth(images, (3, 4), draws))


def shadows(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Hard, bluish shadows behind a few straight or ragged edges."""
    x, y = coordinates(images)
    lit = torch.ones_like(images[:, :1])
    ragged = scalars(images, 0.0, 0.15, draws) * smooth(images, (12, 16), draws)
    for _ in range(SHADOW_EDGES):
        angle = scalars(images, 0.0, 2 * torch.pi, draws)
        distance = x * torch.cos(angle) + y * torch.sin(angle) + scalars(images, -0.6, 0.6, draws)
        lit = lit * torch.sigmoid((distance + ragged) * scalars(images, 40.0, 200.0, draws))
    # Either side of the edges may be the dark one.
    lit = torch.where(scalars(images, 0.0, 1.0, draws) < 0.5, lit, 1 - lit)
    depth = scalars(images, 0.35, 0.8, draws)
    sky_light = images.new_tensor([1.0, 0.97, 0.88])[:, None, None]
    return images * (1 - depth * sky_light * (1 - lit))


def night(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Most light gone, what remains tinted and uneven, lamps with halos, a noisy sensor."""
    remaining = 1 - scalars(images, *config.darkening, draws)
    tint = scalars(images, 0.6, 1.0, draws, channels=3)
    uneven = torch.exp(0.5 * smooth(images, (3, 4), draws))
    # Dark parts sink faster than bright ones, as no ambient light fills them.
    dark = images ** scalars(images, 1.0, 1.4, draws) * remaining * tint * uneven
    noise = scalars(images, 0.0, 0.04, draws) * draws.normal(*images.shape)
    return dark + noise + _lamps(images, draws)


def _lamps(images: Tensor, draws: RandomDraws) -> Tensor:
    """(K, 3, H, W) light of up to LAMPS lamps, some off, each a core and a halo."""
    small = images[..., ::LAMP_REDUCTION, ::LAMP_REDUCTION]
    x, y = coordinates(small)
    aspect = images.shape[-2] / images.shape[-1]
    glow = torch.zeros_like(small)
    for _ in range(LAMPS):
        dx = x - scalars(images, -1.0, 1.0, draws)
        dy = (y - scalars(images, -1.0, 0.7, draws)) * aspect
        core_size = scalars(images, 0.01, 0.04, draws)
        squared = (dx**2 + dy**2) / core_size**2
        halo = scalars(images, 0.1, 0.4, draws) / (1 + squared / 16) ** 1.5
        colour = (
            scalars(images, 0.5, 1.0, draws, channels=3)
            * images.new_tensor([1.0, 0.9, 0.7])[:, None, None]
        )
        on = scalars(images, 0.0, 1.0, draws) < 0.5
        glow = glow + on * colour * (1.5 * torch.exp(-squared) + halo)
    return functional.interpolate(glow, size=images.shape[-2:], mode="bilinear")
