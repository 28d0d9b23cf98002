"""Plan a town house: its wall, its openings, and the light that reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pixloc_ros.demo.street.surfaces import Floats, Image, Light, Texture, Wall

TEXELS_PER_M = 48.0
RECESS_M = 0.2
GROUND_FLOOR_M, UPPER_FLOOR_M = 3.9, 3.1

SHOPS = (
    *("BAKERY", "BOOKS", "CAFE LUMEN", "FLORIST", "PHARMACY", "TAILOR", "CYCLES", "HOTEL MIRA"),
    *("RECORDS", "OPTICIAN", "GROCER", "ATELIER 9", "BISTRO", "TEA HOUSE", "CERAMICS", "MAPS"),
    *("SHOES", "TYPEWRITERS", "DELI", "LAMPS", "PIANOS", "GALLERY", "WATCHES", "ICE CREAM"),
)


@dataclass(frozen=True, slots=True)
class Opening:
    """An opening in the facade, metres from its lower left corner. kind: window, door or shop."""

    u0: float
    v0: float
    u1: float
    v1: float
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """The plan of a house, made before anything is painted."""

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
    """The facade's albedo, its openings, and how much sun and sky reach each texel."""

    def __init__(self, house: House, light: Light, albedo: Floats):
        self.house, self.light, self.albedo = house, light, albedo
        shape = albedo.shape[:2]
        self.alpha: Image = np.full(shape, 255, np.uint8)
        self.sunlit: Floats = np.ones(shape, np.float32)
        self.open_sky: Floats = np.ones(shape, np.float32)

    def texels(self, u0: float, v0: float, u1: float, v1: float) -> tuple[slice, slice]:
        """Return the index of a rectangle given in metres from the lower left corner."""
        top = (self.house.height - v1) * TEXELS_PER_M
        bottom = (self.house.height - v0) * TEXELS_PER_M
        rows = slice(max(round(top), 0), max(round(bottom), 0))
        return rows, slice(max(round(u0 * TEXELS_PER_M), 0), max(round(u1 * TEXELS_PER_M), 0))

    def sun_shift(self, depth: float) -> tuple[float, float] | None:
        """Return the shift of a shadow cast from `depth` metres off the wall; None in the shade."""
        wall, to_sun = self.house.wall, np.array(self.light.to_sun)
        incidence = self.light.incidence(wall.normal)
        if incidence < 0.05:
            return None
        return -depth * float(to_sun @ wall.right) / incidence, -depth * to_sun[2] / incidence

    def cast(self, u0: float, v0: float, u1: float, v1: float, depth: float) -> None:
        """Cast the shadow of a rectangle that stands `depth` metres off the wall."""
        below = self.open_sky[self.texels(u0, v0 - 1.2 * depth, u1, v0)]
        below *= np.linspace(0.72, 1.0, below.shape[0], dtype=np.float32)[:, None]
        shift = self.sun_shift(depth)
        if shift is not None:
            ends = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])
            hull = cv2.convexHull(np.concatenate([ends, ends + shift]).astype(np.float32))[:, 0]
            hull = np.column_stack([hull[:, 0], self.house.height - hull[:, 1]]) * TEXELS_PER_M
            cv2.fillConvexPoly(self.sunlit, hull.astype(np.int32), 0.0)

    def texture(self) -> Texture:
        """Return the albedo in this light, with the openings cut out."""
        sunlit = cv2.GaussianBlur(self.sunlit, (0, 0), 1.2)
        lit = self.light.on(self.house.wall.normal, sunlit, self.open_sky)
        return Texture.of(self.albedo * lit, self.alpha)


def plan(wall: Wall, width: float, floors: int, shop_name: str, rng: np.random.Generator) -> House:
    """Lay out the openings of a house; three in five houses have a shop."""
    bays = max(2, round(width / rng.uniform(2.3, 3.0)))
    shop = shop_name if rng.uniform() < 0.6 else None
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
