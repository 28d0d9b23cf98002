"""Build the top of a house: roof, dormers, gable walls and a chimney."""

from __future__ import annotations

import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.house import House
from pixloc_ros.demo.street.surfaces import Light, Surface, Texture, Wall


def build(house: House, light: Light, rng: np.random.Generator) -> list[Surface]:
    """Return roof, gable walls and a chimney."""
    wall, top, width = house.wall, house.height, house.width
    tiles = materials.roof_tiles((130, round(width * 32)), rng, _roof_colour(rng))
    eaves = [wall.at(0, top, 0.35), wall.at(width, top, 0.35)]
    ridge = [wall.at(0, top + 2.6, -3.2), wall.at(width, top + 2.6, -3.2)]
    slope = np.cross(eaves[0] - ridge[0], ridge[1] - ridge[0])
    slope /= np.linalg.norm(slope)
    surfaces = [Surface.of([*ridge, *eaves[::-1]], Texture.of(tiles * light.on(slope)))]
    render = materials.plaster((round(top * 40), 200), rng, (0.52, 0.46, 0.40))
    for u, facing in ((0.0, -wall.right), (width, wall.right)):
        texture = Texture.of(render * light.on(facing))
        gable = Wall(wall.at(u, 0.0), -wall.normal if facing @ wall.right > 0 else wall.normal)
        span = (0.0, 5.0) if facing @ wall.right > 0 else (-5.0, 0.0)
        surfaces.append(gable.panel(span, (0.0, top), 0.0, texture))
    stack = materials.brick((70, 50), rng, (0.55, 0.30, 0.22), 40.0)
    at = rng.uniform(1.0, width - 2.0)
    chimney = wall.block((at, at + 0.9), (top + 1.0, top + 3.5), (-2.8, -2.1), stack, light)
    return surfaces + chimney + _dormers(house, light, rng)


def _roof_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    colours = ((0.56, 0.28, 0.20), (0.34, 0.36, 0.40), (0.46, 0.32, 0.25))
    return colours[int(rng.integers(len(colours)))]


def _dormers(house: House, light: Light, rng: np.random.Generator) -> list[Surface]:
    wall, surfaces = house.wall, []
    count = max(1, int(house.width // 3.2))
    zinc = materials.plain(rng, (0.50, 0.53, 0.56), (40, 40))
    glazed = zinc.copy()
    glazed[8:-3, 7:-7] = (0.16, 0.20, 0.25)
    glazed[8:-3, 19:21] = glazed[[8, 22]] = 0.82
    for k in range(count):
        u = (k + 0.5) * house.width / count
        span, rise = (u - 0.6, u + 0.6), (house.height + 0.25, house.height + 1.75)
        box = wall.block(span, rise, (-2.2, -0.1), zinc, light)
        box[0] = wall.panel(span, rise, -0.1, Texture.of(glazed * light.on(wall.normal)))
        surfaces += box
    return surfaces
