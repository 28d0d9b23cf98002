"""Effects of light and weather on a scene: shadows, night, fog, snow, and rain on the lens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects.fields import (
    coordinates,
    gaussian,
    grey,
    scalars,
    smooth,
)

SHADOW_EDGES = 3
LAMPS = 6
LAMP_REDUCTION = 2  # factor by which the image of the lamps is smaller
DROP_GRIDS = ((5, 7), (9, 12))  # rows and columns of large and of small drops
DROP_MAGNIFICATION = 5.0  # by which a drop shrinks what it shows, upside down


def illumination(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Apply a smooth field of light and dark."""
    return images * torch.exp(scalars(images, 0.1, 0.7, draws) * smooth(images, (3, 4), draws))


def shadows(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add hard, bluish shadows behind a few straight or ragged edges."""
    x, y = coordinates(images)
    lit = torch.ones_like(images[:, :1])
    ragged = scalars(images, 0.0, 0.15, draws) * smooth(images, (12, 16), draws)
    for _ in range(SHADOW_EDGES):
        angle = scalars(images, 0.0, 2 * torch.pi, draws)
        distance = x * torch.cos(angle) + y * torch.sin(angle) + scalars(images, -0.6, 0.6, draws)
        lit = lit * torch.sigmoid((distance + ragged) * scalars(images, 40.0, 200.0, draws))
    # Either side of an edge may be the dark one.
    lit = torch.where(scalars(images, 0.0, 1.0, draws) < 0.5, lit, 1 - lit)
    depth = scalars(images, 0.35, 0.8, draws)
    sky_light = images.new_tensor([1.0, 0.97, 0.88])[:, None, None]
    return images * (1 - depth * sky_light * (1 - lit))


def night(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Remove most light, tint the rest, add lamps with halos and a noisy sensor."""
    remaining = 1 - scalars(images, *config.darkening, draws)
    tint = scalars(images, 0.6, 1.0, draws, channels=3)
    uneven = torch.exp(0.5 * smooth(images, (3, 4), draws))
    # Dark parts lose more than bright ones, as no ambient light reaches them.
    dark = images ** scalars(images, 1.0, 1.4, draws) * remaining * tint * uneven
    noise = scalars(images, 0.0, 0.04, draws) * draws.normal(*images.shape)
    return dark + noise + _lamps(images, draws)


def _lamps(images: Tensor, draws: RandomDraws) -> Tensor:
    """Return the light (K, 3, H, W) of up to LAMPS lamps, some off, each with core and halo."""
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


def fog(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add fog of one colour, densest around a horizon and uneven."""
    _, y = coordinates(images)
    horizon = scalars(images, -0.4, 0.3, draws)
    nearness = (y - horizon).abs() * scalars(images, 0.3, 1.0, draws)
    density = scalars(images, 0.3, 2.0, draws) * (1 - nearness).clamp(min=0.1)
    clear = torch.exp(-density * torch.exp(0.3 * smooth(images, (4, 5), draws)))
    air = scalars(images, 0.55, 0.95, draws) * scalars(images, 0.94, 1.0, draws, channels=3)
    return images * clear + air * (1 - clear)


def snow(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add lying snow, mostly in the lower part, and falling snow."""
    _, y = coordinates(images)
    where = y * scalars(images, 0.0, 2.0, draws) + smooth(images, (6, 8), draws)
    cover = torch.sigmoid(4 * (where - scalars(images, -0.5, 1.5, draws)))
    white = 0.75 + 0.25 * grey(images)
    lying = images + 0.9 * cover * (white - images)
    density = scalars(images, 0.0, 0.004, draws)
    flakes = (draws.uniform(0.0, 1.0, *images[:, :1].shape) < density).to(images)
    falling = gaussian(flakes, draws.uniform(0.7, 1.6, len(images)))
    return lying + (5 * falling).clamp(max=0.9) * (0.95 - lying).clamp(min=0)


def rain(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Add a wet lens: less contrast, and drops that show the scene small and upside down."""
    haze = scalars(images, 0.0, 0.2, draws)
    wet = gaussian(images, draws.uniform(0.3, 1.0, len(images))) * (1 - haze) + 0.7 * haze
    for grid in DROP_GRIDS:
        wet = _drops(wet, grid, draws)
    return wet


def _drops(images: Tensor, grid: tuple[int, int], draws: RandomDraws) -> Tensor:
    """Draw one drop, or none, in each cell of a grid (rows, columns)."""
    count, shape = len(images), images.shape[-2:]
    radius = draws.uniform(0.15, 0.45, count, 1, *grid)
    middle = radius + (1 - 2 * radius) * draws.uniform(0.0, 1.0, count, 2, *grid)
    absent = draws.uniform(0.0, 1.0, count, 1, *grid) > draws.uniform(0.1, 0.6, count, 1, 1, 1)
    cells = torch.cat([middle, radius, absent.to(images)], 1)
    cells = functional.interpolate(cells, size=shape, mode="nearest")
    offset = _within_cell(images, grid) - cells[:, :2]  # in cells
    distance = offset.norm(dim=1, keepdim=True) / cells[:, 2:3]
    inside = torch.sigmoid(12 * (1 - distance)) * (1 - cells[:, 3:])
    shown = _refracted(images, offset, grid)
    return images + inside * (shown * (1.05 - 0.3 * distance) + 0.05 - images)


def _within_cell(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the position x, y (2, H, W) of each pixel in its cell, 0..1."""
    x, y = coordinates(images)
    rows, columns = grid
    x, y = (
        ((x + 1) / 2 * columns).clamp(max=columns - 1e-4),
        ((y + 1) / 2 * rows).clamp(max=rows - 1e-4),
    )
    return torch.stack(torch.broadcast_tensors(x.frac(), y.frac()))


def _refracted(images: Tensor, offset: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return what drops show: their surroundings, rotated about their centres."""
    x, y = coordinates(images)
    here = torch.stack(torch.broadcast_tensors(x, y), -1)
    cell = offset.new_tensor([2 / grid[1], 2 / grid[0]])
    there = here - (1 + DROP_MAGNIFICATION) * offset.movedim(1, -1) * cell
    return functional.grid_sample(images, there, padding_mode="reflection", align_corners=True)
