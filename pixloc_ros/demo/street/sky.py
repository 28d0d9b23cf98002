"""Build the sky: pictures on the faces of a cube of directions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.surfaces import Array, Floats, Surface, Texture, rgb


@dataclass(frozen=True, slots=True)
class Sky:
    """Colours (RGB in 0..1) from the horizon upwards, of the clouds, and of the hills."""

    haze: tuple[float, float, float] = (0.98, 0.90, 0.78)
    zenith: tuple[float, float, float] = (0.32, 0.55, 0.86)
    cloud: tuple[float, float, float] = (1.0, 0.97, 0.93)
    hills: tuple[float, float, float] = (0.52, 0.56, 0.52)


def build(rng: np.random.Generator, sky: Sky) -> list[Surface]:
    """Return five faces of a cube of directions: four around and one above."""
    faces, size = [], 512
    for turn in range(4):
        ahead = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][turn] + (0,), np.float64)
        right = np.array([ahead[1], -ahead[0], 0.0])
        up = np.array([0.0, 0.0, 1.0])
        corners = [ahead - right + up, ahead + right + up, ahead + right - up, ahead - right - up]
        faces.append(_face(corners, size, rng, sky))
    top = [(-1, 1, 1), (-1, -1, 1), (1, -1, 1), (1, 1, 1)]
    corners = [np.array(corner, np.float64) for corner in top]
    return [*faces, _face(corners, size, rng, sky)]


def _face(corners: list[Array], size: int, rng: np.random.Generator, sky: Sky) -> Surface:
    face = Surface.of(corners, Texture.of(_picture(corners, size, rng, sky)), two_sided=True)
    return replace(face, edge="joined")


def _picture(corners: list[Array], size: int, rng: np.random.Generator, sky: Sky) -> Floats:
    """Paint haze at the horizon, soft clouds above it, hills below."""
    s = (np.arange(size) + 0.5) / size
    right, down = corners[1] - corners[0], corners[3] - corners[0]
    rays = corners[0] + s[None, :, None] * right + s[:, None, None] * down
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    rise = np.clip(rays[..., 2], 0, 1)[..., None].astype(np.float32) ** 0.6
    air = (1 - rise) * rgb(sky.haze) + rise * rgb(sky.zenith)
    puffs = cv2.GaussianBlur(materials.fractal((size, size), rng, (10, 24, 60, 130)), (0, 0), 4)
    cloud = np.clip(puffs - 0.1, 0, 1.2)[..., None] * np.clip(rays[..., 2:] * 5, 0, 1) * 0.75
    air = air * (1 - cloud) + cloud * rgb(sky.cloud)
    air[rays[..., 2] < 0.03] = sky.hills
    return air.astype(np.float32)
