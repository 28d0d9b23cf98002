"""Town houses: a facade with real openings, panes behind them, balconies, awnings, signs, roofs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pixloc_ros.demo import materials
from pixloc_ros.demo.panes import paint_pane
from pixloc_ros.demo.surfaces import Floats, Image, Light, Surface, Texture, Wall

TEXELS_PER_M = 56.0
RECESS_M = 0.2
GROUND_FLOOR_M, UPPER_FLOOR_M = 3.9, 3.1

PLASTERS = (
    (0.86, 0.74, 0.55),
    (0.82, 0.60, 0.46),
    (0.80, 0.76, 0.68),
    (0.62, 0.68, 0.70),
    (0.86, 0.66, 0.40),
    (0.70, 0.74, 0.60),
    (0.82, 0.70, 0.68),
)
BRICKS = ((0.58, 0.30, 0.22), (0.66, 0.42, 0.28), (0.48, 0.27, 0.22), (0.72, 0.58, 0.42))
PAINTS = ((0.16, 0.30, 0.26), (0.45, 0.14, 0.12), (0.14, 0.20, 0.34), (0.30, 0.22, 0.14))
SHOPS = ("BAKERY", "BOOKS", "CAFE LUMEN", "FLORIST", "PHARMACY", "TAILOR", "CYCLES", "HOTEL MIRA")
SHOPS += ("RECORDS", "OPTICIAN", "GROCER", "ATELIER 9", "BISTRO", "TEA HOUSE", "CERAMICS", "MAPS")


@dataclass(frozen=True, slots=True)
class Opening:
    """A hole in the facade, metres from its lower left corner. kind: window, door or shop."""

    u0: float
    v0: float
    u1: float
    v1: float
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """What is decided before anything is painted."""

    wall: Wall
    width: float
    floors: int
    openings: tuple[Opening, ...]
    shop: str | None

    @property
    def height(self) -> float:
        """Height of the eaves above the pavement."""
        return GROUND_FLOOR_M + UPPER_FLOOR_M * self.floors + 0.5


class Elevation:
    """The facade's albedo, its openings, and how much sun and sky reaches each texel."""

    def __init__(self, house: House, light: Light, albedo: Floats):
        self.house, self.light, self.albedo = house, light, albedo
        shape = albedo.shape[:2]
        self.alpha: Image = np.full(shape, 255, np.uint8)
        self.sunlit: Floats = np.ones(shape, np.float32)
        self.open_sky: Floats = np.ones(shape, np.float32)

    def texels(self, u0: float, v0: float, u1: float, v1: float) -> tuple[slice, slice]:
        """Index of a rectangle given in metres from the lower left corner."""
        top = (self.house.height - v1) * TEXELS_PER_M
        bottom = (self.house.height - v0) * TEXELS_PER_M
        rows = slice(max(round(top), 0), max(round(bottom), 0))
        return rows, slice(max(round(u0 * TEXELS_PER_M), 0), max(round(u1 * TEXELS_PER_M), 0))

    def sun_shift(self, depth: float) -> tuple[float, float] | None:
        """Where the shadow of a point `depth` metres off the wall falls; None in the shade."""
        wall, to_sun = self.house.wall, np.array(self.light.to_sun)
        incidence = self.light.incidence(wall.normal)
        if incidence < 0.05:
            return None
        return -depth * float(to_sun @ wall.right) / incidence, -depth * to_sun[2] / incidence

    def cast(self, u0: float, v0: float, u1: float, v1: float, depth: float) -> None:
        """Shadow on the wall of a rectangle that stands `depth` metres off it."""
        below = self.open_sky[self.texels(u0, v0 - 1.2 * depth, u1, v0)]
        below *= np.linspace(0.72, 1.0, below.shape[0], dtype=np.float32)[:, None]
        shift = self.sun_shift(depth)
        if shift is not None:
            ends = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])
            hull = cv2.convexHull(np.concatenate([ends, ends + shift]).astype(np.float32))[:, 0]
            hull = np.column_stack([hull[:, 0], self.house.height - hull[:, 1]]) * TEXELS_PER_M
            cv2.fillConvexPoly(self.sunlit, hull.astype(np.int32), 0.0)

    def texture(self) -> Texture:
        """Albedo under the light, with the openings cut out."""
        sunlit = cv2.GaussianBlur(self.sunlit, (0, 0), 1.2)
        lit = self.light.on(self.house.wall.normal, sunlit, self.open_sky)
        return Texture.of(self.albedo * lit, self.alpha)


def plan(wall: Wall, width: float, floors: int, rng: np.random.Generator) -> House:
    """Lay out the openings of a house."""
    bays = max(2, round(width / rng.uniform(2.3, 3.0)))
    shop = str(rng.choice(SHOPS)) if rng.uniform() < 0.6 else None
    size = rng.uniform(0.95, 1.2), rng.uniform(1.5, 1.85)
    openings = [*_upper_windows(width, floors, bays, size), *_ground_floor(width, bays, shop, rng)]
    return House(wall, width, floors, tuple(openings), shop)


def _upper_windows(
    width: float, floors: int, bays: int, size: tuple[float, float]
) -> Iterator[Opening]:
    for floor in range(floors):
        sill = GROUND_FLOOR_M + UPPER_FLOOR_M * floor + 0.75
        for bay in range(bays):
            u0 = (bay + 0.5) * width / bays - size[0] / 2
            yield Opening(u0, sill, u0 + size[0], sill + size[1], "window")


def _ground_floor(
    width: float, bays: int, shop: str | None, rng: np.random.Generator
) -> Iterator[Opening]:
    door_bay = int(rng.integers(bays))
    for bay in range(bays):
        left, right = bay * width / bays, (bay + 1) * width / bays
        middle = (left + right) / 2
        if bay == door_bay:
            yield Opening(middle - 0.6, 0.12, middle + 0.6, 2.75, "door")
        elif shop:
            yield Opening(left + 0.22, 0.55, right - 0.22, 2.75, "shop")
        else:
            yield Opening(middle - 0.55, 1.05, middle + 0.55, 2.75, "window")


def build(house: House, light: Light, rng: np.random.Generator) -> list[Surface]:
    """All surfaces of a house."""
    elevation = Elevation(house, light, _material(house, rng))
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    _decorate(elevation, paint, rng)
    parts = [*_cornice(elevation, rng), *_drainpipe(elevation, rng), *_balconies(elevation, rng)]
    if house.shop:
        parts += _shop_front(elevation, house.shop, paint, rng)
    parts += _panes(elevation, paint, rng) + _reveals(elevation, rng)
    wall = house.wall.columns(house.width, house.height, 0.0, elevation.texture())
    return wall + parts


def _material(house: House, rng: np.random.Generator) -> Floats:
    shape = (round(house.height * TEXELS_PER_M), round(house.width * TEXELS_PER_M))
    if rng.uniform() < 0.42:
        wall = materials.brick(shape, rng, BRICKS[int(rng.integers(len(BRICKS)))], TEXELS_PER_M)
    else:
        wall = materials.plaster(shape, rng, PLASTERS[int(rng.integers(len(PLASTERS)))])
    ground_rows = shape[0] - round((GROUND_FLOOR_M - 0.35) * TEXELS_PER_M)
    if rng.uniform() < 0.6:
        stone = materials.blocks((shape[0] - ground_rows, shape[1]), rng, (0.70, 0.65, 0.57), (48, 22))
        wall[ground_rows:] = stone
    return wall


def _decorate(elevation: Elevation, paint: materials.Colour, rng: np.random.Generator) -> None:
    """String courses, window surrounds, shutters, dirt near the ground and under the sills."""
    house, albedo = elevation.house, elevation.albedo
    stone = np.float32([0.82, 0.78, 0.70]) * rng.uniform(0.85, 1.05)
    for floor in range(house.floors):
        line = GROUND_FLOOR_M + UPPER_FLOOR_M * floor
        _trim(elevation, 0, line - 0.1, house.width, line + 0.1, stone, rng)
    shutters = not house.shop and rng.uniform() < 0.6 or rng.uniform() < 0.3
    for opening in house.openings:
        u0, v0, u1, v1 = opening.u0, opening.v0, opening.u1, opening.v1
        _trim(elevation, u0 - 0.13, v0 - 0.16, u1 + 0.13, v1 + 0.2, stone, rng)
        if opening.kind == "window" and shutters and v0 > GROUND_FLOOR_M:
            _shutter(elevation, u0 - 0.58, v0, u0 - 0.1, v1, paint)
            _shutter(elevation, u1 + 0.1, v0, u1 + 0.58, v1, paint)
        elevation.alpha[elevation.texels(u0, v0, u1, v1)] = 0
        stain = elevation.texels(u0, v0 - 0.9, u1, v0 - 0.16)
        fade = np.linspace(0.86, 1.0, albedo[stain].shape[0], dtype=np.float32)
        albedo[stain] *= fade[:, None, None]
    splash = np.clip(np.linspace(3.4, 0.0, albedo.shape[0] // 5), 0, 1)[::-1].astype(np.float32)
    albedo[-len(splash) :] *= (1.0 - 0.32 * splash**2)[:, None, None]


def _trim(
    elevation: Elevation,
    u0: float,
    v0: float,
    u1: float,
    v1: float,
    colour: Floats,
    rng: np.random.Generator,
) -> None:
    """A flat stone band: noisy stone, light upper edge, dark lower edge."""
    band = elevation.albedo[elevation.texels(u0, v0, u1, v1)]
    if band.size:
        band[:] = materials.tinted(1 + 0.06 * materials.noise(band.shape[:2], rng, 2.5), colour)
        band[:2] *= 1.15
        band[-2:] *= 0.6
        band[:, :1] *= 0.8
        band[:, -1:] *= 0.8


def _shutter(
    elevation: Elevation, u0: float, v0: float, u1: float, v1: float, paint: materials.Colour
) -> None:
    leaf = elevation.albedo[elevation.texels(u0, v0, u1, v1)]
    if leaf.size:
        slats = 0.8 + 0.5 * (np.arange(leaf.shape[0]) % 5 < 2)
        leaf[:] = (slats[:, None] * np.float32(paint))[:, None]
        leaf[:, [0, 1, -2, -1]] = np.float32(paint) * 0.8
        leaf[[0, -1]] *= 0.5
        elevation.cast(u0, v0, u1, v1, 0.05)


def _cornice(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
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


def _drainpipe(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    house, metal = elevation.house, materials.plain(rng, (0.40, 0.42, 0.42), (256, 8))
    metal[::64] *= 0.5
    elevation.cast(0.12, 0.0, 0.24, house.height - 0.4, 0.14)
    return house.wall.block(
        (0.12, 0.24), (0.1, house.height - 0.45), (0.0, 0.14), metal, elevation.light
    )


def _balconies(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    """Balconies or flower boxes in front of some of the upper windows."""
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


def _railing(length: float, light: Light, normal: np.ndarray) -> Texture:
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


def _shop_front(
    elevation: Elevation, name: str, paint: materials.Colour, rng: np.random.Generator
) -> list[Surface]:
    """Fascia with the shop's name, an awning, and a sign that hangs over the pavement."""
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
    colours = np.float32([[0.75, 0.20, 0.16], [0.20, 0.42, 0.30], [0.22, 0.32, 0.55], [0.8, 0.5, 0.15]])
    width_px = round((span[1] - span[0]) * 40)
    stripe = np.arange(width_px) // 13 % 2
    cloth = np.where(stripe[None, :, None], np.float32([0.88, 0.84, 0.76]), rng.choice(colours))
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
    board = np.zeros((52, 64, 3), np.float32) + np.float32(paint)
    board[[1, 2, -3, -2]] = board[:, [1, 2, -3, -2]] = 0.85
    materials.text(board, name.split()[0][:7], (0.96, 0.9, 0.7))
    sign = Wall(wall.at(u, 3.75, 0.25), -wall.normal)
    other = Wall(wall.at(u + 0.05, 3.75, 1.2), wall.normal)
    bracket = Texture.of(np.full((4, 8, 3), 0.12, np.float32))
    return [
        other.panel((-0.95, 0.0), (0.0, 0.75), 0.0, Texture.of(board * light.on(other.normal))),
        sign.panel((-0.95, 0.0), (0.0, 0.75), 0.0, Texture.of(board * light.on(sign.normal))),
        Surface.of(other.panel((-1.2, 0.0), (0.78, 0.83), 0.0, bracket).corners, bracket, True),
    ]


def _panes(
    elevation: Elevation, paint: materials.Colour, rng: np.random.Generator
) -> list[Surface]:
    """One surface behind all openings: glass, doors and shop windows."""
    house, light = elevation.house, elevation.light
    behind = np.zeros_like(elevation.albedo)
    sunlit = np.zeros(behind.shape[:2], np.float32)
    shift = elevation.sun_shift(RECESS_M)
    for opening in house.openings:
        u0, v0, u1, v1 = opening.u0, opening.v0, opening.u1, opening.v1
        paint_pane(behind[elevation.texels(u0, v0, u1, v1)], opening.kind, paint, rng)
        if shift is not None:
            du, dv = shift
            corners = (max(u0, u0 + du), max(v0, v0 + dv), min(u1, u1 + du), min(v1, v1 + dv))
            sunlit[elevation.texels(*corners)] = 1.0
    sunlit = np.minimum(sunlit, elevation.sunlit)
    lit = light.on(house.wall.normal, cv2.GaussianBlur(sunlit, (0, 0), 1.0), 0.9)
    return house.wall.columns(house.width, house.height, -RECESS_M, Texture.of(behind * lit))


def _reveals(elevation: Elevation, rng: np.random.Generator) -> list[Surface]:
    """The sides of the openings.

    One upright surface serves a whole column of equal openings and one level surface a whole row:
    between the openings the facade hides it.
    """
    house = elevation.house
    stone = materials.plain(rng, (0.70, 0.66, 0.60), (64, 12))
    p, deep, surfaces = house.wall.at, -RECESS_M, []

    def add(corners: list[np.ndarray], normal: np.ndarray) -> None:
        lit = elevation.light.on(normal, 0.55, 0.8)
        surfaces.append(Surface.of(corners, Texture.of(stone * lit)))

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
