"""Render a street: every surface by one homography, hidden ones removed by an exact depth buffer.

The picture is drawn at twice the size and averaged down, so edges are smooth and move smoothly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixloc_ros.demo.street import Street
from pixloc_ros.demo.surfaces import MAX_LEVEL, Array, Floats, Image, Texture

OVERSAMPLING = 2
NEAR_M = 0.15


@dataclass(frozen=True, slots=True)
class RenderedView:
    """image_rgb: uint8 (H, W, 3). depth_m: float32 (H, W), along the optical axis, inf for sky."""

    image_rgb: Image
    depth_m: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Patch:
    """One surface as this camera sees it, in pixels of the enlarged picture."""

    polygon: Array
    box: tuple[int, int, int, int]
    texel_from_pixel: Array
    inverse_depth: Array
    inverse_range: tuple[float, float]
    texture: Texture
    levels: tuple[int, int]


def render(
    street: Street, T_map_cam: Array, K: ArrayLike, width: int, height: int
) -> RenderedView:
    """The view of a pinhole camera.

    T_map_cam: (4, 4) pose of the optical frame. K: (4,) fx fy cx cy in pixels, where the centre
    of the top left pixel is (0, 0). Depth is exact at pixel centres wherever a pixel shows one
    surface; where it shows several, it is that of the nearest.
    """
    size = (width * OVERSAMPLING, height * OVERSAMPLING)
    projection = _enlarged_matrix(K)
    T_cam_map = np.linalg.inv(T_map_cam)
    colour = np.zeros((size[1], size[0], 4), np.uint8)
    inverse_depth = np.zeros((size[1], size[0]), np.float32)
    for patch in _visible(street.arrays, street.textures, T_cam_map, projection, size):
        _draw(patch, colour, inverse_depth)
    rotation = np.eye(4)
    rotation[:3, :3] = T_cam_map[:3, :3]
    for patch in _visible(street.sky_arrays, street.sky_textures, rotation, projection, size):
        _draw_sky(patch, colour, inverse_depth)
    image = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)[..., :3]
    return RenderedView(np.ascontiguousarray(image), _depth(inverse_depth))


def _enlarged_matrix(K: ArrayLike) -> Array:
    """(3, 3) calibration of the enlarged picture: (c + 0.5) * s - 0.5 keeps pixel centres."""
    fx, fy, cx, cy = np.asarray(K, np.float64)
    s = OVERSAMPLING
    centre = (np.array([cx, cy]) + 0.5) * s - 0.5
    return np.array([[fx * s, 0, centre[0]], [0, fy * s, centre[1]], [0, 0, 1.0]])


def _depth(inverse_depth: Floats) -> NDArray[np.float32]:
    """Depth at pixel centres from the four samples around each.

    Inverse depth is linear over a plane, so the mean of the samples is exact within a surface.
    """
    s = OVERSAMPLING
    rows, columns = (n // s for n in inverse_depth.shape)
    samples = inverse_depth.reshape(rows, s, columns, s)
    nearest, farthest = samples.max(axis=(1, 3)), samples.min(axis=(1, 3))
    mean = cv2.resize(inverse_depth, (columns, rows), interpolation=cv2.INTER_AREA)
    value = np.where(nearest - farthest < 0.1 * nearest, mean, nearest)
    with np.errstate(divide="ignore"):
        return (1.0 / value).astype(np.float32)


def _visible(
    arrays: dict[str, NDArray],
    textures: list[Texture],
    T_cam_map: Array,
    projection: Array,
    size: tuple[int, int],
) -> Iterator[_Patch]:
    """Surfaces that face the camera and fall into the picture, nearest first."""
    corners_cam = arrays["corners"] @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
    normals_cam = arrays["normals"] @ T_cam_map[:3, :3].T
    offsets = np.einsum("ni,ni->n", normals_cam, corners_cam[:, 0])
    facing = (offsets < -1e-6) | arrays["two_sided"] & (np.abs(offsets) > 1e-6)
    pixels_h = corners_cam @ projection.T
    depths = pixels_h[..., 2]
    inside = facing & (depths.max(axis=1) > NEAR_M) & _overlaps(pixels_h, size)
    chosen = np.flatnonzero(inside)
    chosen = chosen[np.argsort(np.linalg.norm(corners_cam[chosen], axis=2).min(axis=1))]
    pixel_from_texel = (projection @ T_cam_map[:3]) @ arrays["map_from_texel"][chosen]
    texel_from_pixel = np.linalg.inv(pixel_from_texel)
    planes = (normals_cam[chosen] / offsets[chosen, None]) @ np.linalg.inv(projection)
    for k, index in enumerate(chosen):
        patch = _patch(
            pixels_h[index], texel_from_pixel[k], planes[k], textures[index], size
        )
        if patch is not None:
            yield patch


def _overlaps(pixels_h: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """False for quadrilaterals with all corners beyond the same edge of the picture."""
    x, y, z = np.moveaxis(pixels_h, -1, 0)
    beyond = [x < -z, y < -z, x > size[0] * z, y > size[1] * z]
    return ~np.any([side.all(axis=1) for side in beyond], axis=0)


def _patch(
    pixels_h: Array,
    texel_from_pixel: Array,
    plane: Array,
    texture: Texture,
    size: tuple[int, int],
) -> _Patch | None:
    if pixels_h[:, 2].min() < NEAR_M:
        pixels_h = _clipped(pixels_h)
    polygon = pixels_h[:, :2] / pixels_h[:, 2:]
    (left, top), (right, bottom) = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
    x0, y0 = max(int(left), 0), max(int(top), 0)
    x1, y1 = min(int(right) + 2, size[0]), min(int(bottom) + 2, size[1])
    if x1 <= x0 or y1 <= y0 or right - left < 0.4 or bottom - top < 0.4:
        return None
    depths = pixels_h[:, 2]
    inverse_range = (1.0 / float(depths.max()), 1.0 / float(depths.min()))
    middle = ((max(left, 0) + min(right, size[0])) / 2, (max(top, 0) + min(bottom, size[1])) / 2)
    levels = _levels(texel_from_pixel, middle, texture)
    return _Patch(
        polygon, (x0, y0, x1, y1), texel_from_pixel, plane, inverse_range, texture, levels
    )


def _clipped(pixels_h: Array) -> Array:
    """The polygon's part beyond the near plane (Sutherland-Hodgman against one plane)."""
    kept = []
    for a, b in zip(pixels_h, np.roll(pixels_h, -1, axis=0), strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            kept.append(a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _levels(
    texel_from_pixel: Array, middle: tuple[float, float], texture: Texture
) -> tuple[int, int]:
    """Reduction of the texture in u and v at which one pixel step is about one texel."""
    (a, b, c), (d, e, f), (g, h, i) = texel_from_pixel.tolist()
    x, y = middle
    w = g * x + h * y + i
    u, v = (a * x + b * y + c) / w, (d * x + e * y + f) / w
    step_u = np.hypot(a - u * g, b - u * h) / abs(w)
    step_v = np.hypot(d - v * g, e - v * h) / abs(w)
    return _level(float(step_u), texture.size[0]), _level(float(step_v), texture.size[1])


def _level(step: float, texels: int) -> int:
    if step <= 1.0:
        return 0
    return min(int(np.log2(step) + 0.4), MAX_LEVEL, texels.bit_length() - 1)


def _draw(patch: _Patch, colour: Image, inverse_depth: Floats) -> None:
    """Write the patch where it is nearer than what the picture already shows."""
    x0, y0, x1, y1 = patch.box
    behind = inverse_depth[y0:y1, x0:x1]
    a, b, c = patch.inverse_depth
    columns = (a * np.arange(x0, x1) + c).astype(np.float32)
    rows = (b * np.arange(y0, y1)).astype(np.float32)
    own = np.clip(rows[:, None] + columns, *np.float32(patch.inverse_range))
    mask = _outline(patch)
    mask[own <= behind] = 0
    if not cv2.hasNonZero(mask):
        return
    texels = _warp(patch)
    cv2.bitwise_and(mask, cv2.extractChannel(texels, 3), mask)
    mask = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
    cv2.copyTo(texels, mask, colour[y0:y1, x0:x1])
    cv2.copyTo(own, mask, behind)


def _draw_sky(patch: _Patch, colour: Image, inverse_depth: Floats) -> None:
    x0, y0, x1, y1 = patch.box
    mask = _outline(patch)
    mask[inverse_depth[y0:y1, x0:x1] > 0] = 0
    if cv2.hasNonZero(mask):
        cv2.copyTo(_warp(patch), mask, colour[y0:y1, x0:x1])


def _outline(patch: _Patch) -> Image:
    """Mask (h, w) of the patch's box: 255 inside its polygon."""
    x0, y0, x1, y1 = patch.box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    points = np.round((patch.polygon - (x0, y0)) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, points, 255, shift=4)
    return mask


def _warp(patch: _Patch) -> Image:
    """RGBA (h, w, 4) of the patch's box."""
    x0, y0, x1, y1 = patch.box
    image = patch.texture.level(*patch.levels)
    scale = np.divide(image.shape[1::-1], patch.texture.size)
    texel_from_box = patch.texel_from_pixel.copy()
    texel_from_box[:, 2] += texel_from_box[:, 0] * x0 + texel_from_box[:, 1] * y0
    texel_from_box[:2] *= scale[:, None]
    texel_from_box[:2] -= 0.5 * texel_from_box[2]
    return cv2.warpPerspective(
        image,
        texel_from_box,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
