"""Building blocks of the generated street: flat textured surfaces in the map frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

Edge = Literal["free", "joined", "hidden"]

MAX_LEVEL = 6


def rgb(values: ArrayLike) -> Floats:
    """Return colours (..., 3) as float32, so that pictures stay small."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """An RGBA uint8 image, with copies halved independently along u and v.

    Walls and roads are seen at a grazing angle, where one direction shrinks much more than the
    other; halving both together would blur the direction that is still sharp.
    """

    rgba: Image
    glow: Image | None = None  # RGB (H, W, 3): emitted light, if street lamps are on
    _levels: dict[tuple[int, int], Image] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in texels."""
        return self.rgba.shape[1], self.rgba.shape[0]

    def level(self, level_u: int, level_v: int) -> Image:
        """Return the texture reduced 2**level_u times in width and 2**level_v times in height."""
        key = (level_u, level_v)
        if key == (0, 0):
            return self.rgba
        if key not in self._levels:
            source = self.level(max(level_u - 1, 0), level_v if level_u else level_v - 1)
            width = self.size[0] >> level_u
            height = self.size[1] >> level_v
            shape = (max(width, 1), max(height, 1))
            self._levels[key] = cv2.resize(source, shape, interpolation=cv2.INTER_AREA)
        return self._levels[key]

    @staticmethod
    def of(
        colour: NDArray[np.floating],
        alpha: Image | None = None,
        glow: NDArray[np.floating] | None = None,
    ) -> Texture:
        """Build a texture of colour and glow (H, W, 3) in 0..1 and alpha (H, W) in 0..255."""
        rgba = np.empty((*colour.shape[:2], 4), np.uint8)
        rgba[..., :3] = np.clip(colour * np.float32(255), 0, 255)
        rgba[..., 3] = 255 if alpha is None else alpha
        return Texture(rgba, None if glow is None else np.clip(glow * 255, 0, 255).astype(np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A convex planar quadrilateral.

    corners: (4, 3) in the map frame, metres: top left, top right, bottom right, bottom left as seen
    from the front.
    map_from_texel: (4, 3) homogeneous map point = map_from_texel @ (u, v, 1); (0, 0) is the outer
    corner of the first texel.
    edge: which pixels on the outline belong to the surface. free: those whose centre it covers.
    joined: all that it touches, so that no gap opens to neighbours in the same plane. hidden: none,
    for surfaces that end behind another one and would shine through when seen edge-on.
    """

    corners: Array
    texture: Texture
    map_from_texel: Array
    two_sided: bool = False
    edge: Edge = "free"

    @property
    def normal(self) -> Array:
        """Unit vector (3,) out of the front."""
        across, down = self.corners[1] - self.corners[0], self.corners[3] - self.corners[0]
        normal = np.cross(down, across)
        return np.asarray(normal / np.linalg.norm(normal))

    @staticmethod
    def of(corners: Sequence[Array] | Array, texture: Texture, two_sided: bool = False) -> Surface:
        """Stretch the whole texture over the four corners."""
        points = np.asarray(corners, np.float64)
        return Surface(points, texture, _map_from_texel(points, texture.size), two_sided)


def _map_from_texel(corners: Array, size: tuple[int, int]) -> Array:
    """Return the homography (4, 3) from texels to homogeneous map points, for any quadrilateral."""
    width, height = size
    edges = np.stack([corners[1] - corners[0], corners[3] - corners[0]], axis=1)
    opposite = np.linalg.solve(edges.T @ edges, edges.T @ (corners[2] - corners[0]))
    map_from_plane = np.zeros((4, 3))
    map_from_plane[:3] = np.column_stack([edges, corners[0]])
    map_from_plane[3, 2] = 1.0
    if np.abs(opposite - 1.0).max() < 1e-9:
        return map_from_plane / (width, height, 1.0)
    texels = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    plane = np.array([[0, 0], [1, 0], opposite, [0, 1]], np.float32)
    return map_from_plane @ cv2.getPerspectiveTransform(texels, plane)


@dataclass(frozen=True, slots=True)
class Light:
    """Sun and sky. to_sun: unit vector in the map frame; colours are RGB factors."""

    to_sun: tuple[float, float, float] = (-0.64, 0.42, 0.643)
    sky: tuple[float, float, float] = (0.60, 0.64, 0.74)
    sun: tuple[float, float, float] = (1.52, 1.19, 0.76)
    lit_windows: float = 0.0  # share of the windows

    def incidence(self, normal: Array) -> float:
        """Return the share of the sun's light on a surface with this unit normal."""
        return max(0.0, float(np.dot(self.to_sun, normal)))

    def on(
        self, normal: Array, sunlit: Floats | float = 1.0, open_sky: Floats | float = 1.0
    ) -> Floats:
        """Return the RGB factor (..., 3) of a surface that receives this much sun and sky."""
        sun = np.asarray(sunlit, np.float32)[..., None] * rgb(self.sun)
        sky = np.asarray(open_sky, np.float32)[..., None] * rgb(self.sky)
        sun *= np.float32(self.incidence(normal))
        sky *= np.float32(0.88 + 0.12 * normal[2])
        return sun + sky


@dataclass(frozen=True, slots=True, eq=False)
class Wall:
    """A vertical plane with axes u to the viewer's right, v up, and `out` towards the viewer."""

    origin: Array
    right: Array

    @property
    def normal(self) -> Array:
        """Unit vector (3,) towards the viewer."""
        return np.array([self.right[1], -self.right[0], 0.0])

    def at(self, u: float, v: float, out: float = 0.0) -> Array:
        """Convert wall coordinates in metres to a map point (3,)."""
        return self.origin + u * self.right + np.array([0.0, 0.0, v]) + out * self.normal

    def panel(
        self, u: tuple[float, float], v: tuple[float, float], out: float, texture: Texture
    ) -> Surface:
        """Return a rectangle parallel to the wall, `out` metres in front of it."""
        (u0, u1), (v0, v1) = u, v
        corners = [self.at(u0, v1, out), self.at(u1, v1, out)]
        return Surface.of([*corners, self.at(u1, v0, out), self.at(u0, v0, out)], texture)

    def columns(self, width: float, height: float, out: float, texture: Texture) -> list[Surface]:
        """Cut the panel (0..width, 0..height) into vertical strips that share its texture.

        All of a strip has nearly the same distance to the camera, hence one good texture level.
        """
        whole = self.panel((0.0, width), (0.0, height), out, texture)
        cuts = np.linspace(0.0, width, max(2, int(np.ceil(width / 2.5)) + 1))
        strips = []
        for u0, u1 in pairwise(cuts):
            ends = [self.at(u, v, out) for u, v in [(u0, height), (u1, height), (u1, 0), (u0, 0)]]
            strips.append(Surface(np.array(ends), texture, whole.map_from_texel, edge="joined"))
        return strips

    def block(
        self,
        u: tuple[float, float],
        v: tuple[float, float],
        out: tuple[float, float],
        albedo: Floats,
        light: Light,
    ) -> list[Surface]:
        """Return a box on the wall: front, both ends, top and underside, each lit by itself."""
        (u0, u1), (v0, v1), (o0, o1) = u, v, out

        def face(a: Array, b: Array, c: Array, d: Array) -> Surface:
            normal = np.cross(d - a, b - a)
            normal /= np.linalg.norm(normal)
            return Surface.of([a, b, c, d], Texture.of(albedo * light.on(normal)))

        p = self.at
        return [
            face(p(u0, v1, o1), p(u1, v1, o1), p(u1, v0, o1), p(u0, v0, o1)),
            face(p(u0, v1, o0), p(u0, v1, o1), p(u0, v0, o1), p(u0, v0, o0)),
            face(p(u1, v1, o1), p(u1, v1, o0), p(u1, v0, o0), p(u1, v0, o1)),
            face(p(u0, v1, o0), p(u1, v1, o0), p(u1, v1, o1), p(u0, v1, o1)),
            face(p(u0, v0, o1), p(u1, v0, o1), p(u1, v0, o0), p(u0, v0, o0)),
        ]
