"""Effects of night and snow on surfaces, and of rain on pictures of the street."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.surfaces import Array, Floats, Image, Surface, Texture, rgb

MOONLIGHT = rgb([0.085, 0.09, 0.11])
LAMP = rgb([1.0, 0.74, 0.44]) * 13.0  # at a distance of one metre
HEADLIGHT = 7.0  # factor on the other light, in front of the car
SAMPLE_M, MAX_SAMPLES = 0.4, 500
SNOW = rgb([0.93, 0.95, 1.0])


def under_lamps(surfaces: Sequence[Surface], lamps_xyz: Array) -> list[Surface]:
    """Light surfaces by lamps (L, 3) at night instead of by day; nothing casts shadows."""
    return _repainted(surfaces, lambda surface: _lamp_lit(surface, lamps_xyz))


def under_snow(surfaces: Sequence[Surface], rng: np.random.Generator) -> list[Surface]:
    """Put snow on surfaces that face upwards, thinner where they are steep."""
    return _repainted(surfaces, lambda surface: _snowed(surface, rng))


def _repainted(surfaces: Sequence[Surface], paint: Callable[[Surface], Texture]) -> list[Surface]:
    """Replace the textures of surfaces; those that shared one share the new one."""
    done: dict[int, Texture] = {}
    for surface in surfaces:
        if id(surface.texture) not in done:
            done[id(surface.texture)] = paint(surface)
    return [replace(surface, texture=done[id(surface.texture)]) for surface in surfaces]


def _lamp_lit(surface: Surface, lamps_xyz: Array) -> Texture:
    texture = surface.texture
    points = _texel_points(surface)
    to_lamp = lamps_xyz - points[..., None, :]  # (h, w, L, 3)
    squared = (to_lamp**2).sum(-1)
    facing = to_lamp @ surface.normal / np.sqrt(squared)
    facing = np.abs(facing) if surface.two_sided else facing.clip(0)
    # Lanterns shine down and around; the houses opposite reflect some of the light.
    spread = 0.25 + 0.75 * (to_lamp[..., 2] / np.sqrt(squared)).clip(0)
    received = ((0.15 + 0.85 * facing) * spread / (squared + 0.3)).sum(-1)
    light = cv2.resize(received.astype(np.float32), texture.size)[..., None] * LAMP + MOONLIGHT
    colour = texture.rgba[..., :3] / np.float32(255) * light
    if texture.glow is not None:
        colour += texture.glow / np.float32(255)
    return Texture.of(colour, texture.rgba[..., 3])


def _texel_points(surface: Surface) -> Array:
    """Return map points (h, w, 3) of a coarse grid over a surface's whole texture."""
    width, height = surface.texture.size
    corners = _at_texels(surface, np.array([[0, 0], [width, 0], [0, height]], float))
    extent = np.linalg.norm(corners[1:] - corners[0], axis=1) / SAMPLE_M
    columns, rows = np.clip(extent, 2, (min(MAX_SAMPLES, width), min(MAX_SAMPLES, height)))
    u = (np.arange(int(columns)) + 0.5) * width / int(columns)
    v = (np.arange(int(rows)) + 0.5) * height / int(rows)
    return _at_texels(surface, np.stack(np.meshgrid(u, v), -1))


def _at_texels(surface: Surface, texels: Array) -> Array:
    homogeneous = texels @ surface.map_from_texel[:, :2].T + surface.map_from_texel[:, 2]
    return homogeneous[..., :3] / homogeneous[..., 3:]


def _snowed(surface: Surface, rng: np.random.Generator) -> Texture:
    texture, up = surface.texture, surface.normal[2]
    if up < 0.3 or surface.edge == "joined":  # GroundPicture covers the ground with snow
        return texture
    shape = texture.rgba.shape[:2]
    cover = np.clip(0.5 + up + 0.5 * materials.fractal(shape, rng, (4, 12)), 0, 1)[..., None]
    colour = texture.rgba[..., :3] / np.float32(255)
    return Texture.of(colour * (1 - cover) + cover * SNOW, texture.rgba[..., 3])


def headlights(image_rgb: Image, depth_m: NDArray[np.float32]) -> Image:
    """Add the light of the own car to the picture of a street at night."""
    height, width = depth_m.shape
    v, u = np.indices(depth_m.shape, np.float32)
    across, down = (u / width - 0.5) / 0.35, (v / height - 0.60) / 0.16
    beam = np.exp(-(across**2) - np.where(down < 0, 4 * down, 0.6 * down) ** 2)
    gain = 1 + HEADLIGHT * beam / (1.0 + 0.06 * np.minimum(depth_m, 1e3) ** 2)
    return _to_uint8(image_rgb * gain[..., None])


def wet_road(
    image_rgb: Image, mirrored_rgb: Image, points: Array, rays: Array, puddles: Floats
) -> Image:
    """Make the road in a picture dark and reflecting.

    mirrored_rgb: view of a camera mirrored in the road.
    points: (H, W, 3) in the map frame.
    rays: (H, W, 3) unit vectors from the camera.
    puddles: (H, W) in 0..1, how smooth the water is.
    """
    road = (points[..., 2] < 0.18).astype(np.float32)
    reflected = 0.04 + 0.96 * (1 - np.abs(rays[..., 2])) ** 5  # Schlick, at the wet surface
    share = (road * reflected * (0.25 + 0.75 * puddles))[..., None].astype(np.float32)
    soaked = image_rgb * (1 - 0.45 * road[..., None])
    streaks = cv2.blur(mirrored_rgb, (1, 9)).astype(np.float32)
    return _to_uint8(soaked * (1 - share) + streaks * share)


def _to_uint8(image: Floats) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
