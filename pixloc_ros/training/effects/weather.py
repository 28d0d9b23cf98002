"""Fog, snow, and rain on the lens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects.fields import coordinates, grey, scalars, smooth
from pixloc_ros.training.effects.lens import gaussian

DROP_GRIDS = ((5, 7), (9, 12))  # rows and columns of drops, large and small
DROP_MAGNIFICATION = 5.0  # of what a drop shows, upside down


def fog(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Air of one colour, densest around a horizon and unevenly spread."""
    _, y = coordinates(images)
    horizon = scalars(images, -0.4, 0.3, draws)
    nearness = (y - horizon).abs() * scalars(images, 0.3, 1.0, draws)
    density = scalars(images, 0.3, 2.0, draws) * (1 - nearness).clamp(min=0.1)
    clear = torch.exp(-density * torch.exp(0.3 * smooth(images, (4, 5), draws)))
    air = scalars(images, 0.55, 0.95, draws) * scalars(images, 0.94, 1.0, draws, channels=3)
    return images * clear + air * (1 - clear)


def snow(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Snow that lies, mostly on what is low, and snow that falls."""
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
    """A wet lens: less contrast, and drops that show the scene small and upside down."""
    haze = scalars(images, 0.0, 0.2, draws)
    wet = gaussian(images, draws.uniform(0.3, 1.0, len(images))) * (1 - haze) + 0.7 * haze
    for grid in DROP_GRIDS:
        wet = _drops(wet, grid, draws)
    return wet


def _drops(images: Tensor, grid: tuple[int, int], draws: RandomDraws) -> Tensor:
    """One drop, or none, in each cell of a grid (rows, columns)."""
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
    """(2, H, W) position x, y of each pixel in its cell, 0..1."""
    x, y = coordinates(images)
    rows, columns = grid
    x, y = (
        ((x + 1) / 2 * columns).clamp(max=columns - 1e-4),
        ((y + 1) / 2 * rows).clamp(max=rows - 1e-4),
    )
    return torch.stack(torch.broadcast_tensors(x.frac(), y.frac()))


def _refracted(images: Tensor, offset: Tensor, grid: tuple[int, int]) -> Tensor:
    """What drops show: their surroundings, turned around their middles."""
    x, y = coordinates(images)
    here = torch.stack(torch.broadcast_tensors(x, y), -1)
    cell = offset.new_tensor([2 / grid[1], 2 / grid[0]])
    there = here - (1 + DROP_MAGNIFICATION) * offset.movedim(1, -1) * cell
    return functional.grid_sample(images, there, padding_mode="reflection", align_corners=True)
