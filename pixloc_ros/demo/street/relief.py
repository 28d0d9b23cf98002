"""Build what projects from a facade: cornice, balconies, awnings, signs, sides of openings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.house import GROUND_FLOOR_M, RECESS_M, TEXELS_PER_M, Elevation, Opening
from pixloc_ros.demo.street.surfaces import Array, Light, Surface, Texture, Wall, rgb


def cornice(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    house = elevation.house
    top, out = house.height, rng.uniform(0.3, 0.5)
    elevation.cast(0.0, top - 0.45, house.width, top, out)
    stone = materials.plain(rng, (0.78, 0.73, 0.64), (24, round(house.width * 40)))
    stone[:, ::14] *= 0.7
    stone[[8, 15]] *= 0.65
    span = (0.0, house.width)
    upper = house.wall.block(span, (top - 0.22, top), (0.0, out), stone, elevation.light)
    return upper + house.wall.block(
        span, (top - 0.45, top - 0.22), (0.0, 0.6 * out), stone, elevation.light
    )


def drainpipe(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    house, metal = elevation.house, materials.plain(rng, (0.40, 0.42, 0.42), (256, 8))
    metal[::64] *= 0.5
    elevation.cast(0.12, 0.0, 0.24, house.height - 0.4, 0.14)
    return house.wall.block(
        (0.12, 0.24), (0.1, house.height - 0.45), (0.0, 0.14), metal, elevation.light
    )


def balconies(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    """Return balconies or flower boxes in front of some of the upper windows."""
    surfaces: list[Surface] = []
    railed = rng.uniform() < 0.55
    for opening in elevation.house.openings:
        if opening.kind == "window" and opening.v0 > GROUND_FLOOR_M:
            if railed and rng.uniform() < 0.5:
                surfaces += _balcony(elevation, opening, rng)
            elif not railed and rng.uniform() < 0.35:
                surfaces += _flower_box(elevation, opening, rng)
    return surfaces


def _balcony(elevation: Elevation, opening: Opening, rng: np.random.Generator) -> list[Surface]:
    wall, light, depth = elevation.house.wall, elevation.light, 0.75
    u0, u1, floor = opening.u0 - 0.3, opening.u1 + 0.3, opening.v0 - 0.12
    elevation.cast(u0, floor - 0.16, u1, floor, depth)
    slab = materials.plain(rng, (0.74, 0.70, 0.63), (8, 80))
    front, side = _railing(u1 - u0, light, wall.normal), _railing(depth, light, wall.right)
    a, b = wall.at(u0, floor + 0.95, depth), wall.at(u1, floor + 0.95, depth)
    down = np.array([0.0, 0.0, -0.95])
    back_a, back_b = wall.at(u0, floor + 0.95), wall.at(u1, floor + 0.95)
    return [
        *wall.block((u0, u1), (floor - 0.16, floor), (0.0, depth), slab, light),
        Surface.of([a, b, b + down, a + down], front, two_sided=True),
        Surface.of([back_a, a, a + down, back_a + down], side, two_sided=True),
        Surface.of([b, back_b, back_b + down, b + down], side, two_sided=True),
    ]


def _railing(length: float, light: Light, normal: Array) -> Texture:
    shape = (54, max(8, round(length * TEXELS_PER_M)))
    bars = np.zeros(shape, np.uint8)
    bars[:, np.arange(shape[1]) % 7 < 2] = 255
    bars[[0, 1, 2, 3, 10, 11, -5, -4, -3, -2, -1]] = 255
    bars[:, [0, 1, 2, -3, -2, -1]] = 255
    iron = np.full((*shape, 3), 0.13, np.float32)
    iron[:2] *= 2.2
    return Texture.of(iron * light.on(normal), bars)


def _flower_box(elevation: Elevation, opening: Opening, rng: np.random.Generator) -> list[Surface]:
    wall, light = elevation.house.wall, elevation.light
    u, sill = (opening.u0 - 0.05, opening.u1 + 0.05), opening.v0
    elevation.cast(u[0], sill - 0.2, u[1], sill, 0.26)
    clay = materials.plain(rng, (0.55, 0.30, 0.20), (12, 60))
    box = wall.block(u, (sill - 0.2, sill), (0.02, 0.26), clay, light)
    shape = (26, round((u[1] - u[0]) * TEXELS_PER_M))
    green = materials.tinted(1 + 0.4 * materials.noise(shape, rng, 2.5), (0.22, 0.34, 0.12))
    petals = materials.noise(shape, rng, 3) > 0.75
    green[petals] = rng.choice([[0.85, 0.2, 0.25], [0.9, 0.55, 0.65], [0.95, 0.75, 0.2]])
    rise = materials.noise(shape, rng, 4) + np.linspace(-1.4, 2.6, shape[0])[:, None]
    alpha = (rise > 0).astype(np.uint8) * 255
    flowers = Texture.of(green * light.on(wall.normal), alpha)
    return [*box, wall.panel(u, (sill - 0.03, sill + 0.4), 0.2, flowers)]


def shop_front(
    elevation: Elevation, name: str, paint: materials.Colour, rng: np.random.Generator
) -> list[Surface]:
    """Return a fascia with the shop's name, an awning, and a sign above the pavement."""
    house, wall, light = elevation.house, elevation.house.wall, elevation.light
    span, band = (0.35, house.width - 0.3), (2.95, 3.6)
    board = materials.plain(rng, paint, (40, round((span[1] - span[0]) * TEXELS_PER_M)))
    board[[2, 3, -4, -3]] = 0.75
    materials.text(board, name, (0.95, 0.88, 0.66))
    elevation.cast(span[0], band[0], span[1], band[1], 0.14)
    surfaces = wall.block(span, band, (0.0, 0.14), materials.plain(rng, paint), light)
    surfaces[0] = wall.panel(span, band, 0.14, Texture.of(board * light.on(wall.normal)))
    if rng.uniform() < 0.6:
        surfaces += _awning(elevation, span, rng)
    return surfaces + _hanging_sign(wall, house.width * 0.92, name, paint, light)


def _awning(
    elevation: Elevation, span: tuple[float, float], rng: np.random.Generator
) -> list[Surface]:
    wall, light = elevation.house.wall, elevation.light
    colours = rgb([[0.75, 0.20, 0.16], [0.20, 0.42, 0.30], [0.22, 0.32, 0.55], [0.8, 0.5, 0.15]])
    width_px = round((span[1] - span[0]) * 40)
    stripe = np.arange(width_px) // 13 % 2
    cloth = np.where(stripe[None, :, None], rgb([0.88, 0.84, 0.76]), rng.choice(colours))
    cloth = cloth * (1 + 0.05 * materials.fractal((48, width_px), rng, (2, 12)))[..., None]
    elevation.cast(span[0], 2.45, span[1], 2.9, 0.9)
    top = [wall.at(span[0], 2.92, 0.1), wall.at(span[1], 2.92, 0.1)]
    edge = [wall.at(span[1], 2.45, 1.1), wall.at(span[0], 2.45, 1.1)]
    hem = [point - np.array([0.0, 0.0, 0.22]) for point in edge]
    slope = np.array([*(0.43 * wall.normal[:2]), 0.9])
    scallops = np.full((10, width_px), 255, np.uint8)
    scallops[6:, np.arange(width_px) % 13 < 3] = 0
    lit, upright = Texture.of(cloth * light.on(slope)), cloth[:10] * light.on(wall.normal)
    return [
        Surface.of([*top, *edge], lit, two_sided=True),
        Surface.of([edge[1], edge[0], hem[0], hem[1]], Texture.of(upright, scallops), True),
    ]


def _hanging_sign(
    wall: Wall, u: float, name: str, paint: materials.Colour, light: Light
) -> list[Surface]:
    board = np.zeros((52, 64, 3), np.float32) + rgb(paint)
    board[[1, 2, -3, -2]] = board[:, [1, 2, -3, -2]] = 0.85
    materials.text(board, name.split()[0], (0.96, 0.9, 0.7))
    sign = Wall(wall.at(u, 3.75, 0.25), -wall.normal)
    other = Wall(wall.at(u + 0.05, 3.75, 1.2), wall.normal)
    bracket = Texture.of(np.full((4, 8, 3), 0.12, np.float32))
    return [
        other.panel((-0.95, 0.0), (0.0, 0.75), 0.0, Texture.of(board * light.on(other.normal))),
        sign.panel((-0.95, 0.0), (0.0, 0.75), 0.0, Texture.of(board * light.on(sign.normal))),
        Surface.of(other.panel((-1.2, 0.0), (0.78, 0.83), 0.0, bracket).corners, bracket, True),
    ]


def reveals(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    """Return the sides of the openings.

    One vertical surface serves a whole column of equal openings, and one horizontal surface a whole
    row: between the openings, the facade hides it.
    """
    house = elevation.house
    stone = materials.plain(rng, (0.70, 0.66, 0.60), (64, 12))
    p, deep, surfaces = house.wall.at, -RECESS_M, []

    def add(corners: list[Array], normal: Array) -> None:
        lit = elevation.light.on(normal, 0.55, 0.8)
        surface = Surface.of(corners, Texture.of(stone * lit))
        surfaces.append(replace(surface, edge="hidden"))

    up = np.array([0.0, 0.0, 1.0])
    for u0, u1, v0, v1 in _columns(house.openings):
        add([p(u0, v1), p(u0, v1, deep), p(u0, v0, deep), p(u0, v0)], house.wall.right)
        add([p(u1, v1, deep), p(u1, v1), p(u1, v0), p(u1, v0, deep)], -house.wall.right)
    for v0, v1, u0, u1 in _rows(house.openings):
        add([p(u0, v0, deep), p(u1, v0, deep), p(u1, v0), p(u0, v0)], up)
        add([p(u0, v1), p(u1, v1), p(u1, v1, deep), p(u0, v1, deep)], -up)
    return surfaces


def _columns(openings: tuple[Opening, ...]) -> list[tuple[float, float, float, float]]:
    keys = {(o.u0, o.u1) for o in openings}
    groups = [(key, [o for o in openings if (o.u0, o.u1) == key]) for key in sorted(keys)]
    return [(*key, min(o.v0 for o in group), max(o.v1 for o in group)) for key, group in groups]


def _rows(openings: tuple[Opening, ...]) -> list[tuple[float, float, float, float]]:
    keys = {(o.v0, o.v1) for o in openings}
    groups = [(key, [o for o in openings if (o.v0, o.v1) == key]) for key in sorted(keys)]
    return [(*key, min(o.u0 for o in group), max(o.u1 for o in group)) for key, group in groups]
