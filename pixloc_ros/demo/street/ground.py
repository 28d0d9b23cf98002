"""Build road and pavements: one picture of the ground from above, along the curved street."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.furniture import Car, Tree
from pixloc_ros.demo.street.surfaces import Array, Floats, Image, Light, Surface, Texture

TEXELS_PER_M = 50.0
STEP_M = 4.0
ROAD_HALF_M, FACADE_M, KERB_M = 4.7, 7.8, 0.13
LANE_LINE_M = 2.75


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The street's centre line: nodes (N, 2) in the map frame in metres, x increasing."""

    nodes: Array

    @staticmethod
    def curve(length_m: float) -> Layout:
        """Return a gentle double bend from x = -14 m to 34 m beyond the street's length."""
        count = int(np.ceil((length_m + 48.0) / STEP_M)) + 1
        x = -14.0 + STEP_M * np.arange(count)
        return Layout(np.column_stack([x, 4.0 * np.sin(2 * np.pi * (x - 5.0) / 150.0)]))

    def centre(self, x: Array | float) -> Array:
        """Return y of the centre line."""
        return np.asarray(np.interp(x, *self.nodes.T))

    def heading(self, x: Array | float) -> Array:
        """Return the smoothed direction of the centre line, in radians about z."""
        return np.arctan2(self.centre(np.add(x, 3.0)) - self.centre(np.subtract(x, 3.0)), 6.0)

    def at(self, x: float, offset: float, up: float = 0.0) -> Array:
        """Return the map point (3,) at x and `offset` metres to the left of the centre line."""
        return np.array([x, float(self.centre(x)) + offset, up])


class GroundPicture:
    """Albedo and shadows of the ground; y decreases with the row, x increases with the column."""

    def __init__(self, layout: Layout, rng: np.random.Generator):
        self.layout, self.rng = layout, rng
        reach = float(np.abs(layout.nodes[:, 1]).max()) + FACADE_M + 0.8
        self.left, self.top = float(layout.nodes[0, 0]), reach
        width = round((layout.nodes[-1, 0] - self.left) * TEXELS_PER_M)
        self.shape = (round(2 * reach * TEXELS_PER_M), width)
        self.x = self.left + (np.arange(width, dtype=np.float32) + 0.5) / TEXELS_PER_M
        y = reach - (np.arange(self.shape[0], dtype=np.float32) + 0.5) / TEXELS_PER_M
        self.offset: Floats = y[:, None] - layout.centre(self.x).astype(np.float32)
        self.level = self._asphalt()
        self.sunlit: Image = np.full(self.shape, 255, np.uint8)
        self.open_sky: Image = np.full(self.shape, 255, np.uint8)

    def texels(self, points: ArrayLike) -> Array:
        """Convert map points (N, 2) to texels (N, 2); (0, 0) is the first texel's outer corner."""
        xy = np.asarray(points, np.float64)[..., :2]
        return (xy * (1, -1) + (-self.left, self.top)) * TEXELS_PER_M

    def _asphalt(self) -> Floats:
        fine = materials.fractal(self.shape, self.rng, (1, 2.5))
        coarse = materials.fractal(self.shape, self.rng, (7, 18, 50, 160, 420))
        level = 0.44 + 0.040 * fine + 0.035 * coarse
        tracks = np.abs(np.abs(np.abs(self.offset) - 1.4) - 0.75)
        level *= 0.90 + 0.12 * np.clip(tracks / 0.4, 0, 1)
        level[fine > 2.2] += 0.16
        return level

    def paint_road(self) -> None:
        """Paint repairs, cracks, markings, manholes and gutters."""
        for _ in range(int(self.shape[1] / TEXELS_PER_M / 3)):
            self._repair()
        for _ in range(int(self.shape[1] / TEXELS_PER_M / 1.5)):
            self._crack()
        self._markings()
        for _ in range(int(self.shape[1] / TEXELS_PER_M / 7)):
            self._manhole()
        gutter = np.abs(np.abs(self.offset) - ROAD_HALF_M + 0.15) < 0.15
        self.level[gutter] *= 0.8

    def _place(self, width: float) -> tuple[float, float]:
        x = self.rng.uniform(self.x[0] + 1, self.x[-1] - 4)
        return x, float(self.layout.centre(x)) + self.rng.uniform(-width, width)

    def _repair(self) -> None:
        x, y = self._place(3.8)
        length, width = self.rng.uniform(0.6, 4.0), self.rng.uniform(0.4, 1.6)
        (u0, v0), (u1, v1) = self.texels([(x, y + width), (x + length, y)]).astype(int)
        patch = self.level[max(v0, 0) : v1, max(u0, 0) : u1]
        patch *= self.rng.choice([0.66, 0.76, 1.16])
        for edge in (patch[:2], patch[-2:], patch[:, :2], patch[:, -2:]):
            edge *= 0.6

    def _crack(self) -> None:
        start = np.array(self._place(4.3))
        turns = np.cumsum(self.rng.normal(0, 0.28, 40)) + self.rng.uniform(0, 6.28)
        steps = 0.09 * np.column_stack([np.cos(turns), np.sin(turns)])
        line = self.texels(start + np.cumsum(steps, axis=0)).astype(np.int32)
        cv2.polylines(self.level, [line], False, 0.2, int(self.rng.integers(1, 3)))

    def _markings(self) -> None:
        worn = materials.fractal(self.shape, self.rng, (8, 24)) > -1.5
        x, offset = self.x[None], self.offset
        lines = (np.abs(offset) < 0.06) & (x % 5.0 < 2.6)
        lines |= np.abs(np.abs(offset) - LANE_LINE_M) < 0.05
        lines |= (np.abs(np.abs(offset) - 3.7) < 0.95) & (x % 5.6 < 0.1)
        for crossing in np.arange(self.x[0] + 32.0, self.x[-1], 47.0):
            inside = (x > crossing) & (x < crossing + 3.2) & (np.abs(offset) < ROAD_HALF_M - 0.3)
            lines &= ~inside
            lines |= inside & (offset % 1.0 < 0.5)
        lines &= worn
        self.level[lines] = 0.80 * (0.76 + 0.5 * self.level[lines])

    def _manhole(self) -> None:
        u, v = self.texels([self._place(2.4)])[0].astype(int).tolist()
        cv2.circle(self.level, (u, v), 18, 0.16, -1)
        cv2.circle(self.level, (u, v), 16, 0.30, -1)
        for k in range(-12, 13, 6):
            cv2.line(self.level, (u + k, v - 10), (u + k, v + 10), 0.2, 2)
        cv2.circle(self.level, (u, v), 4, 0.18, -1)

    def paint_pavement(self) -> None:
        """Paint slabs of different tones between the kerb stones and the houses."""
        aside = np.abs(self.offset)
        pavement = aside > ROAD_HALF_M
        along = (self.x / 0.62).astype(np.int32) - int(self.x[0] / 0.62) + 2
        across = (aside / 0.52).astype(np.int32)
        tones = self.rng.normal(0.56, 0.045, (across.max() + 1, along.max() + 2))
        slabs = tones.astype(np.float32)[across, along[None] + across % 2]
        slabs *= 0.5 + 1.15 * self.level
        joints = ((self.x % 0.62 < 0.03)[None]) | (aside % 0.52 < 0.03)
        slabs[joints] *= 0.66
        kerb = aside < ROAD_HALF_M + 0.28
        slabs[kerb] = 0.62 + 0.5 * (self.level[kerb] - 0.44)
        slabs[kerb & ((self.x % 1.0 < 0.025)[None])] *= 0.6
        self.level[pavement] = slabs[pavement]

    def cover_with_snow(self) -> None:
        """Cover pavements with trodden snow, the road with less, the wheel tracks with least."""
        wheels = np.abs(np.abs(np.abs(self.offset) - 1.4) - 0.75) < 0.35
        depth = 0.9 * (np.abs(self.offset) > ROAD_HALF_M) + 0.1 - 0.9 * wheels
        depth += 0.35 * materials.fractal(self.shape, self.rng, (5, 14, 40, 120))
        cover = np.clip(2.0 * depth, 0, 1)
        self.level += cover * (0.90 + 0.15 * (self.level - 0.44) - self.level)

    def cast_upright(self, foot: Array, height: float, light: Light) -> None:
        """Cast the shadow of a wall of this height above a polyline or convex outline (N, 2)."""
        sun = np.array(light.to_sun)
        shift = -sun[:2] / sun[2] * height
        for a, b in pairwise(foot):
            quad = self.texels([a, b, b + shift, a + shift])
            cv2.fillConvexPoly(self.sunlit, quad.astype(np.int32), 0)

    def cast_car(self, car: Car, light: Light) -> None:
        """Cast the shadow of a car, and the darkness beneath it."""
        foot = car.footprint()
        shift = -np.array(light.to_sun[:2]) / light.to_sun[2] * 1.15
        hull = cv2.convexHull(np.vstack([foot, foot + shift]).astype(np.float32))[:, 0]
        cv2.fillConvexPoly(self.sunlit, self.texels(hull).astype(np.int32), 0)
        cv2.fillConvexPoly(self.open_sky, self.texels(foot).astype(np.int32), 70)

    def cast_tree(self, tree: Tree, light: Light, leaves: bool = True) -> None:
        """Cast dappled shade, or the shadow of the trunk alone."""
        shift = -np.array(light.to_sun[:2]) / light.to_sun[2] * tree.height
        middle = np.array([tree.x, tree.y]) + shift
        for _ in range(150 if leaves else 0):
            spot = middle + self.rng.normal(0, 0.42 * tree.radius, 2) * (1.25, 1.0)
            centre = self.texels([spot])[0].astype(int).tolist()
            axes = self.rng.integers(6, 20, 2).tolist()
            cv2.ellipse(self.sunlit, centre, axes, float(self.rng.uniform(0, 180)), 0, 360, 0, -1)
        self.cast_upright(np.array([[tree.x, tree.y - 0.1], [tree.x, tree.y + 0.1]]), 3.0, light)

    def texture(self, light: Light) -> Texture:
        """Return the picture in this light; it is computed in bands of columns to save memory."""
        near_wall = np.clip(255 - 110 * np.clip(np.abs(self.offset) - 6.9, 0, 0.9), 0, 255)
        np.minimum(self.open_sky, near_wall.astype(np.uint8), out=self.open_sky)
        sunlit = cv2.GaussianBlur(self.sunlit, (0, 0), 1.5)
        open_sky = cv2.GaussianBlur(self.open_sky, (0, 0), 7.0)
        rgba = np.full((*self.shape, 4), 255, np.uint8)
        tint = np.array([1.0, 0.985, 0.95])
        up = np.array([0.0, 0.0, 1.0])
        sun = (255 * light.incidence(up) * tint * light.sun).astype(np.float32) / 255
        sky = (255 * tint * light.sky).astype(np.float32) / 255
        for channel in range(3):
            lit = sunlit * sun[channel] + open_sky * sky[channel]
            rgba[..., channel] = np.clip(self.level * lit, 0, 255)
        return Texture(rgba)

    def surfaces(self, light: Light) -> list[Surface]:
        """Return road, kerb faces and raised pavements between the nodes of the centre line."""
        texture = self.texture(light)
        stone = materials.plain(self.rng, (0.6, 0.57, 0.52), (8, 200))
        stone[:, ::50] *= 0.6
        tiles: list[Surface] = []
        nodes = self.layout.nodes
        for a, b in pairwise(nodes):
            for inner, outer in ((-ROAD_HALF_M, 0.0), (0.0, ROAD_HALF_M)):
                tiles.append(self._tile(a, b, inner, outer, 0.0, texture))
            tiles.append(self._tile(a, b, ROAD_HALF_M, FACADE_M + 0.7, KERB_M, texture))
            tiles.append(self._tile(a, b, -FACADE_M - 0.7, -ROAD_HALF_M, KERB_M, texture))
            tiles += _kerbs(a, b, stone, light)
        return tiles

    def _tile(
        self, a: Array, b: Array, right: float, left: float, up: float, texture: Texture
    ) -> Surface:
        scale = 1.0 / TEXELS_PER_M
        map_from_texel = np.array(
            [[scale, 0, self.left], [0, -scale, self.top], [0, 0, up], [0, 0, 1.0]]
        )
        ends = [(a, left), (b, left), (b, right), (a, right)]
        corners = np.array([[node[0], node[1] + offset, up] for node, offset in ends])
        return Surface(corners, texture, map_from_texel, edge="joined")


def _kerbs(a: Array, b: Array, stone: Floats, light: Light) -> list[Surface]:
    surfaces = []
    for side in (1.0, -1.0):
        first, second = (a, b) if side > 0 else (b, a)
        corners = np.array(
            [[p[0], p[1] + side * ROAD_HALF_M, up] for p, up in _around(first, second)]
        )
        normal = np.array([0.0, -side, 0.0])
        surfaces.append(Surface.of(corners, Texture.of(stone * light.on(normal))))
    return surfaces


def _around(first: Array, second: Array) -> list[tuple[Array, float]]:
    return [(first, KERB_M), (second, KERB_M), (second, 0.0), (first, 0.0)]
