"""Build what is on the street only on some days: people, and scaffolding in front of a house."""

from __future__ import annotations

import cv2
import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.house import House
from pixloc_ros.demo.street.surfaces import Array, Light, Surface, Texture, rgb

CLOTHES = ((0.16, 0.18, 0.24), (0.42, 0.12, 0.12), (0.60, 0.56, 0.46), (0.14, 0.30, 0.24))
SKIN = (0.72, 0.52, 0.42)


def person(
    foot: Array, heading_rad: float, light: Light, rng: np.random.Generator
) -> list[Surface]:
    """Return a walker made of two crossed cards, visible from all sides. foot: map point (3,)."""
    height = rng.uniform(1.55, 1.9)
    colour, alpha = _figure(rng)
    surfaces = []
    for turn in (heading_rad, heading_rad + np.pi / 2):
        across = 0.3 * height / 1.75 * np.array([-np.sin(turn), np.cos(turn), 0.0])
        up = np.array([0.0, 0.0, height])
        corners = [foot + across + up, foot - across + up, foot - across, foot + across]
        lit = colour * light.on(np.array([np.cos(turn), np.sin(turn), 0.0]), 0.7)
        surfaces.append(Surface.of(corners, Texture.of(lit, alpha), two_sided=True))
    return surfaces


def _figure(rng: np.random.Generator) -> tuple[Array, np.ndarray]:
    """Return colour (140, 48, 3) and cut-out of somebody who stands or walks."""
    colour, alpha = np.zeros((140, 48, 3), np.float32), np.zeros((140, 48), np.uint8)
    coat, trousers = rgb(CLOTHES)[rng.integers(len(CLOTHES), size=2)] * rng.uniform(0.7, 1.4)
    stride = int(rng.integers(2, 9))
    parts = [
        (trousers, [[17, 74], [31, 74], [24 + stride + 4, 139], [24 + stride - 3, 139]]),
        (trousers, [[17, 74], [31, 74], [24 - stride + 3, 139], [24 - stride - 4, 139]]),
        (coat, [[15, 24], [33, 24], [37, 60], [33, 84], [15, 84], [11, 60]]),
    ]
    for paint, outline in parts:
        cv2.fillConvexPoly(colour, np.array(outline), paint.tolist())
        cv2.fillConvexPoly(alpha, np.array(outline), 255)
    cv2.ellipse(colour, (24, 13), (6, 9), 0, 0, 360, SKIN, -1)
    cv2.ellipse(alpha, (24, 13), (6, 9), 0, 0, 360, 255, -1)
    return colour * (1 + 0.08 * materials.noise(alpha.shape, rng, 3))[..., None], alpha


def scaffold(house: House, light: Light, rng: np.random.Generator) -> list[Surface]:
    """Return poles, planks and torn nets, a metre in front of the wall."""
    shape = (round(house.height * 24), round(house.width * 24))
    colour = materials.plain(rng, (0.42, 0.52, 0.44), shape)
    alpha = np.zeros(shape, np.uint8)
    net = materials.fractal(shape, rng, (30, 90)) > 0.4
    alpha[net & (np.indices(shape).sum(0) % 3 > 0)] = 255
    for row in range(shape[0] - 48, 0, -48):  # every two metres
        alpha[row : row + 5], colour[row : row + 5] = 255, (0.62, 0.48, 0.30)
    for column in range(2, shape[1], 43):
        alpha[:, column : column + 2], colour[:, column : column + 2] = 255, 0.55
    texture = Texture.of(colour * light.on(house.wall.normal), alpha)
    return [house.wall.panel((0.0, house.width), (0.0, house.height), 1.0, texture)]
