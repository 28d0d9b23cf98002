"""Degrade images by bad light, weather or lenses, to find out where a localizer fails.

Every function takes an RGB image uint8 (H, W, 3) and a generator, and returns a new one of the same
shape. Sizes in pixels refer to images 1242 wide and scale with the width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import ConfigError

Image = NDArray[np.uint8]
REFERENCE_WIDTH_PX = 1242.0


def night(image_rgb: Image, rng: np.random.Generator) -> Image:
    """Underexpose to about a tenth: bluish, darker towards the top, with sensor noise."""
    headlights = np.linspace(0.45, 1.0, len(image_rgb))[:, None, None]
    linear = (image_rgb / 255.0) ** 2.2 * headlights * [0.10, 0.11, 0.14]
    electrons = rng.poisson(linear * 900.0) + rng.normal(0.0, 4.0, linear.shape)
    return _to_uint8(np.clip(electrons / 900.0, 0, 1) ** (1 / 2.2) * 255.0)


def blur(image_rgb: Image, rng: np.random.Generator, length_px: float = 21.0) -> Image:
    """Add motion blur along a nearly horizontal line, as when the vehicle turns."""
    length = max(3, round(length_px * _scale(image_rgb)) | 1)
    angle_deg = float(rng.normal(0.0, 8.0))
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1.0
    middle = ((length - 1) / 2, (length - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, angle_deg, 1.0)
    return _filtered(image_rgb, cv2.warpAffine(line, turn, (length, length)))


def defocus(image_rgb: Image, rng: np.random.Generator, radius_px: float = 6.0) -> Image:
    """Put the image out of focus: a disc of confusion."""
    radius = max(1, round(radius_px * _scale(image_rgb)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return _filtered(image_rgb, disc.astype(np.float32))


def rain(image_rgb: Image, rng: np.random.Generator, drops: int = 60) -> Image:
    """Add a wet lens: drops with a blurred, flipped and brightened scene, and less contrast."""
    height, width = image_rgb.shape[:2]
    mask = np.zeros((height, width), np.float32)
    for _ in range(drops):
        radius = float(rng.gamma(3.0, 5.0)) * _scale(image_rgb) + 2.0
        center = (rng.uniform(0, width), rng.uniform(0, height))
        axes = (radius, radius * rng.uniform(1.0, 1.5))
        cv2.ellipse(mask, (center, (2 * axes[0], 2 * axes[1]), 0.0), 1.0, -1, cv2.LINE_AA)
    drop = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    inside = cv2.GaussianBlur(image_rgb[::-1, ::-1], (0, 0), 12.0 * _scale(image_rgb))
    lens = 0.75 * _soft(image_rgb) + 45.0
    return _to_uint8(lens * (1 - drop) + (0.8 * inside + 50.0) * drop)


def fog(image_rgb: Image, rng: np.random.Generator, visibility: float = 0.35) -> Image:
    """Add fog, densest at the horizon and thinner towards the ground near the camera."""
    height, width = image_rgb.shape[:2]
    row = np.linspace(0.0, 1.0, height)[:, None, None]
    clear = visibility + (0.9 - visibility) * np.clip((row - 0.5) / 0.5, 0, 1) ** 1.5
    clouds = cv2.resize(rng.normal(0, 0.05, (5, 8)), (width, height), interpolation=cv2.INTER_CUBIC)
    clear = np.clip(clear + clouds[..., None], 0.1, 1.0)
    return _to_uint8(_soft(image_rgb) * clear + 205.0 * (1 - clear))


def occlusion(image_rgb: Image, rng: np.random.Generator, share: float = 0.30) -> Image:
    """Cover at least a share of the image with boxes, like vehicles beside and ahead."""
    height, width = image_rgb.shape[:2]
    out, covered = image_rgb.copy(), np.zeros((height, width), bool)
    while covered.mean() < share:
        w = max(1, round(width * rng.uniform(0.10, 0.25)))
        h = max(1, round(height * rng.uniform(0.3, 0.6)))
        x, y = round(rng.uniform(0, width - w)), round(rng.uniform(0.2, 0.7) * (height - h))
        _draw_vehicle(out[y : y + h, x : x + w], rng)
        covered[y : y + h, x : x + w] = True
    return out


DEGRADATIONS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "night": night,
    "blur": blur,
    "defocus": defocus,
    "rain": rain,
    "fog": fog,
    "occlusion": occlusion,
}


def degrade(name: str, image_rgb: Image, seed: int) -> Image:
    """Apply the named degradation; the same seed gives the same image. Raises ConfigError."""
    return degradation(name)(image_rgb, np.random.default_rng(seed))


def degradation(name: str) -> Callable[[Image, np.random.Generator], Image]:
    """Return the function of a name, or of several names joined by +, applied in turn.

    Raises ConfigError for an unknown name.
    """
    parts = name.split("+")
    if unknown := [part for part in parts if part not in DEGRADATIONS]:
        known = ", ".join(DEGRADATIONS)
        raise ConfigError(f"unknown degradation '{unknown[0]}'; choose from {known}")

    def all_of_them(image_rgb: Image, rng: np.random.Generator) -> Image:
        for part in parts:
            image_rgb = DEGRADATIONS[part](image_rgb, rng)
        return image_rgb

    return all_of_them


def _draw_vehicle(patch: Image, rng: np.random.Generator) -> None:
    height, width = patch.shape[:2]
    shade = np.linspace(1.1, 0.7, height)[:, None, None]
    paint_rgb = rng.uniform(25, 200) + rng.normal(0.0, 12.0, 3)
    patch[:] = _to_uint8(paint_rgb * shade * np.ones((1, width, 1)))
    window = patch[height // 8 : height // 2, width // 10 : -width // 10]
    window[:] = _to_uint8(np.full(window.shape, rng.uniform(15, 60)))
    patch[-max(1, height // 6) :] //= 3


def _filtered(image_rgb: Image, kernel: NDArray[Any]) -> Image:
    weights = kernel / kernel.sum()
    return np.asarray(
        cv2.filter2D(image_rgb, -1, weights, borderType=cv2.BORDER_REPLICATE), np.uint8
    )


def _soft(image_rgb: Image) -> NDArray[np.float64]:
    return cv2.GaussianBlur(image_rgb, (0, 0), 0.8).astype(np.float64)


def _scale(image_rgb: Image) -> float:
    return image_rgb.shape[1] / REFERENCE_WIDTH_PX


def _to_uint8(image: NDArray[np.float64]) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
