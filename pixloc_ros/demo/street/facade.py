"""Build the fronts of town houses: facades with real openings, panes behind them, and fixtures."""

from __future__ import annotations

import cv2
import numpy as np

from pixloc_ros.demo.street import materials, relief
from pixloc_ros.demo.street.house import (
    GROUND_FLOOR_M,
    RECESS_M,
    TEXELS_PER_M,
    UPPER_FLOOR_M,
    Elevation,
    House,
)
from pixloc_ros.demo.street.panes import paint_pane
from pixloc_ros.demo.street.surfaces import Floats, Light, Surface, Texture, rgb

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
WINDOW_GLOW = (0.95, 0.72, 0.42)
PAINTS = ((0.16, 0.30, 0.26), (0.45, 0.14, 0.12), (0.14, 0.20, 0.34), (0.30, 0.22, 0.14))


def build(
    house: House,
    light: Light,
    rng: np.random.Generator,
    repaint: np.random.Generator | None = None,
) -> list[Surface]:
    """Return all surfaces of a house. repaint: only draws another material for its wall."""
    material = _material(house, rng)
    if repaint is not None:
        material = _material(house, repaint)
    elevation = Elevation(house, light, material)
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    _decorate(elevation, paint, rng)
    parts = [
        *relief.cornice(elevation, rng),
        *relief.drainpipe(elevation, rng),
        *relief.balconies(elevation, rng),
    ]
    if house.shop:
        parts += relief.shop_front(elevation, house.shop, paint, rng)
    parts += _panes(elevation, paint, rng) + relief.reveals(elevation, rng)
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
        stone = materials.blocks(
            (shape[0] - ground_rows, shape[1]), rng, (0.70, 0.65, 0.57), (48, 22)
        )
        wall[ground_rows:] = stone
    return wall


def _decorate(elevation: Elevation, paint: materials.Colour, rng: np.random.Generator) -> None:
    """Add string courses, window surrounds, shutters, and dirt near the ground and below sills."""
    house, albedo = elevation.house, elevation.albedo
    stone = rgb([0.82, 0.78, 0.70]) * rng.uniform(0.85, 1.05)
    for floor in range(house.floors):
        line = GROUND_FLOOR_M + UPPER_FLOOR_M * floor
        _trim(elevation, 0, line - 0.1, house.width, line + 0.1, stone, rng)
    shutters = (not house.shop and rng.uniform() < 0.6) or rng.uniform() < 0.3
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
    """Add a flat stone band: noisy stone, light upper edge, dark lower edge."""
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
        leaf[:] = (slats[:, None] * rgb(paint))[:, None]
        leaf[:, [0, 1, -2, -1]] = rgb(paint) * 0.8
        leaf[[0, -1]] *= 0.5
        elevation.cast(u0, v0, u1, v1, 0.05)


def _panes(
    elevation: Elevation, paint: materials.Colour, rng: np.random.Generator
) -> list[Surface]:
    """Return one surface behind all openings: glass, doors and shop windows."""
    house, light = elevation.house, elevation.light
    behind = np.zeros_like(elevation.albedo)
    sunlit = np.zeros(behind.shape[:2], np.float32)
    glow = np.zeros_like(behind) if light.lit_windows else None
    lit = rng.spawn(1)[0].uniform(size=len(house.openings)) < light.lit_windows
    shift = elevation.sun_shift(RECESS_M)
    for index, opening in enumerate(house.openings):
        u0, v0, u1, v1 = opening.u0, opening.v0, opening.u1, opening.v1
        pane = elevation.texels(u0, v0, u1, v1)
        paint_pane(behind[pane], opening.kind, paint, rng)
        if glow is not None and (lit[index] or opening.kind == "shop"):
            glow[pane] = (0.25 + 0.75 * behind[pane]) * rgb(WINDOW_GLOW)
        if shift is not None:
            du, dv = shift
            corners = (max(u0, u0 + du), max(v0, v0 + dv), min(u1, u1 + du), min(v1, v1 + dv))
            sunlit[elevation.texels(*corners)] = 1.0
    sunlit = np.minimum(sunlit, elevation.sunlit)
    daylight = light.on(house.wall.normal, cv2.GaussianBlur(sunlit, (0, 0), 1.0), 0.9)
    texture = Texture.of(behind * daylight, glow=glow)
    return house.wall.columns(house.width, house.height, -RECESS_M, texture)
