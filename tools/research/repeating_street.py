"""A street whose facades repeat exactly: one place looks as the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.dataset import DatasetOptions
from pixloc_ros.demo.street.ground import FACADE_M, Layout
from pixloc_ros.demo.street.sessions import StreetSession
from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.surfaces import Surface, Texture

PERIOD_M = 6.0
HEIGHT_M = 9.0
TEXELS_PER_M = 40
BEGIN, END = -4, 16  # periods, beyond both ends of the drive


@dataclass(frozen=True, slots=True)
class RepeatingStreet(DatasetOptions):
    """same_ground: the road repeats as well, so that nothing at all tells two periods apart."""

    same_ground: bool = True
    period_m: float = PERIOD_M

    @property
    def layout(self) -> Layout:
        x = np.arange(BEGIN, END + 1) * self.period_m
        return Layout(np.column_stack([x, np.zeros_like(x)]))

    def generate(self, session: StreetSession) -> Street:
        rng = np.random.default_rng(self.seed)
        length_m = self.period_m
        facades = [_facade(rng, length_m), _facade(rng, length_m)]
        grounds = [_plane(rng, length_m, 2 * FACADE_M) for _ in range(BEGIN, END)]
        surfaces = []
        for period in range(BEGIN, END):
            ground = grounds[0 if self.same_ground else period - BEGIN]
            surfaces += _period(length_m * period, length_m, facades, ground)
        return Street.of(self.layout, surfaces, rng)


def _period(x: float, length_m: float, facades: list[Texture], ground: Texture) -> list[Surface]:
    """Both sides of the street and the ground between them, from x on."""
    end, up = x + length_m, HEIGHT_M
    left, right, bottom = (
        [[x, FACADE_M, up], [end, FACADE_M, up], [end, FACADE_M, 0], [x, FACADE_M, 0]],
        [[end, -FACADE_M, up], [x, -FACADE_M, up], [x, -FACADE_M, 0], [end, -FACADE_M, 0]],
        [[end, FACADE_M, 0], [end, -FACADE_M, 0], [x, -FACADE_M, 0], [x, FACADE_M, 0]],
    )
    pairs = zip((left, right, bottom), (*facades, ground), strict=True)
    return [Surface.of(np.array(corners, float), texture) for corners, texture in pairs]


def _facade(rng: np.random.Generator, length_m: float) -> Texture:
    """Plaster with a door and some windows, no two alike."""
    shape = round(HEIGHT_M * TEXELS_PER_M), round(length_m * TEXELS_PER_M)
    colour = 0.55 + 0.07 * materials.fractal(shape, rng, (2, 6, 20, 60))[..., None]
    colour = colour * rng.uniform(0.7, 1.1, 3)
    for _ in range(9):
        top, left = rng.integers(0, np.array(shape) - 70)
        height, width = rng.integers(25, 70, 2)
        colour[top : top + height, left : left + width] = rng.uniform(0.05, 0.95, 3)
    return Texture.of(colour)


def _plane(rng: np.random.Generator, length_m: float, across_m: float) -> Texture:
    """Asphalt with blotches."""
    shape = round(length_m * TEXELS_PER_M), round(across_m * TEXELS_PER_M)
    level = 0.4 + 0.08 * materials.fractal(shape, rng, (2, 6, 20, 60))
    return Texture.of(materials.tinted(level, (1.0, 1.0, 1.0)))
