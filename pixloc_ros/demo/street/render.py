"""Render a street: each surface by one homography, occlusion by an exact depth buffer.

The picture is rendered at twice the size and averaged down, so that edges are smooth and move
smoothly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import log2

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.surfaces import MAX_LEVEL, Array, Floats, Image, Texture

OVERSAMPLING = 2
NEAR_M = 0.15
SHRINK_PX = 0.4


@dataclass(frozen=True, slots=True)
class RenderedView:
    """image_rgb: uint8 (H, W, 3). depth_m: float32 (H, W), along the optical axis, inf for sky."""

    image_rgb: Image
    depth_m: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """One surface as this camera sees it, in pixels of the enlarged picture.

    outline: (5, 3) x, y, inverse depth.
    box: x0 y0 x1 y1.
    plane: (3,) inverse depth = plane @ (x, y, 1).
    step: (2,) texels in u and v per pixel.
    """

    outline: Array
    box: NDArray[np.int64]
    texel_from_pixel: Array
    plane: Array
    texture: Texture
    step: Array
    edge: str


def render(street: Street, T_map_cam: Array, K: ArrayLike, width: int, height: int) -> RenderedView:
    """Render the view of a pinhole camera.

    T_map_cam: (4, 4) pose of the optical frame.
    K: (4,) fx fy cx cy in pixels; the centre of the top left pixel is (0, 0).

    Depth is exact at pixel centres if a pixel shows one surface; if it shows several, it is that of
    the nearest.
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
    """Return the calibration (3, 3) of the enlarged picture: c becomes (c + 0.5) * s - 0.5."""
    fx, fy, cx, cy = np.asarray(K, np.float64)
    s = OVERSAMPLING
    centre = (np.array([cx, cy]) + 0.5) * s - 0.5
    return np.array([[fx * s, 0, centre[0]], [0, fy * s, centre[1]], [0, 0, 1.0]])


def _depth(inverse_depth: Floats) -> NDArray[np.float32]:
    """Return depth at pixel centres from the four samples around each.

    Inverse depth is linear on a plane, so the mean of the samples is exact within a surface.
    """
    s = OVERSAMPLING
    rows, columns = (n // s for n in inverse_depth.shape)
    samples = [inverse_depth[i::s, j::s] for i in range(s) for j in range(s)]
    nearest, farthest = reduce(np.maximum, samples), reduce(np.minimum, samples)
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
    """Yield surfaces that face the camera and overlap the picture, nearest first."""
    corners_cam = arrays["corners"] @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
    normals_cam = arrays["normals"] @ T_cam_map[:3, :3].T
    offsets = np.einsum("ni,ni->n", normals_cam, corners_cam[:, 0])
    facing = (offsets < -1e-6) | arrays["two_sided"] & (np.abs(offsets) > 1e-6)
    pixels_h = corners_cam @ projection.T
    chosen = np.flatnonzero(facing & _overlaps(pixels_h, size))
    outlines = _outlines(pixels_h[chosen], arrays["edge"][chosen] == "free")
    boxes, broad = _boxes(outlines, size)
    distance = np.linalg.norm(corners_cam[chosen], axis=2).min(axis=1)
    order = np.argsort(np.where(broad, distance, np.inf))[: np.count_nonzero(broad)]
    chosen, boxes, outlines = chosen[order], boxes[order], outlines[order]
    pixel_from_texel = (projection @ T_cam_map[:3]) @ arrays["map_from_texel"][chosen]
    texel_from_pixel = np.linalg.inv(pixel_from_texel)
    planes = (normals_cam[chosen] / offsets[chosen, None]) @ np.linalg.inv(projection)
    steps = _steps(texel_from_pixel, boxes)
    for k, index in enumerate(chosen.tolist()):
        yield _Patch(
            outline=outlines[k],
            box=boxes[k],
            texel_from_pixel=texel_from_pixel[k],
            plane=planes[k],
            texture=textures[index],
            step=steps[k],
            edge=str(arrays["edge"][index]),
        )


def _overlaps(pixels_h: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return False for quadrilaterals behind the camera or wholly beyond an edge of the picture."""
    x, y, z = np.moveaxis(pixels_h, -1, 0)
    beyond = [x < -z, y < -z, x > size[0] * z, y > size[1] * z]
    return (z.max(axis=1) > NEAR_M) & ~np.any([side.all(axis=1) for side in beyond], axis=0)


def _outlines(pixels_h: Array, free: NDArray[np.bool_]) -> Array:
    """Return polygons (N, 5, 3) in the picture: x, y, inverse depth; clipped at the near plane.

    Filling a polygon also draws its outline, half a pixel to either side; so `free` ones are
    shrunk.
    """
    whole = free & (pixels_h[..., 2].min(axis=1) >= NEAR_M)
    pixels_h = pixels_h.copy()
    pixels_h[whole] = _shrunk(pixels_h[whole])
    polygons = np.concatenate([pixels_h, pixels_h[:, -1:]], axis=1)
    for k in np.flatnonzero(pixels_h[..., 2].min(axis=1) < NEAR_M):
        kept = _clipped(pixels_h[k])
        polygons[k] = kept[np.minimum(np.arange(5), len(kept) - 1)]
    depth = polygons[..., 2:]
    return np.concatenate([polygons[..., :2] / depth, 1.0 / depth], axis=2)


def _shrunk(pixels_h: Array) -> Array:
    """Move every edge of quadrilaterals (N, 4, 3) inwards by SHRINK_PX."""
    corners = pixels_h[..., :2] / pixels_h[..., 2:]
    edges = np.roll(corners, -1, axis=1) - corners
    edges /= np.linalg.norm(edges, axis=2, keepdims=True) + 1e-9
    before = np.roll(edges, 1, axis=1)
    turn = before[..., 0] * edges[..., 1] - before[..., 1] * edges[..., 0]
    # Moving a corner by (edge - before) / |sine of its angle| moves both its edges inwards by one.
    moved = corners + (edges - before) * (SHRINK_PX / np.maximum(np.abs(turn), 0.3))[..., None]
    return np.concatenate([moved * pixels_h[..., 2:], pixels_h[..., 2:]], axis=2)


def _clipped(pixels_h: Array) -> Array:
    """Return the polygon's part beyond the near plane (Sutherland-Hodgman, one plane)."""
    kept = []
    for a, b in zip(pixels_h, np.roll(pixels_h, -1, axis=0), strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            kept.append(a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _boxes(outlines: Array, size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return pixel boxes (N, 4), x0 y0 x1 y1, within the picture, and which are worth drawing."""
    low, high = outlines[..., :2].min(axis=1), outlines[..., :2].max(axis=1)
    first = np.maximum(low.astype(int), 0)
    last = np.minimum(high.astype(int) + 2, size)
    broad = np.all((last > first) & (high - low >= 0.4), axis=1)
    return np.hstack([first, last]), broad


def _steps(texel_from_pixel: Array, boxes: NDArray[np.int64]) -> Array:
    """Return how many texels (N, 2) in u and v one pixel covers in the middle of each box."""
    middles = np.column_stack([boxes[:, :2] + boxes[:, 2:], np.full(len(boxes), 2)]) / 2.0
    texel_h = np.einsum("nij,nj->ni", texel_from_pixel, middles)
    uv = texel_h[:, :2] / texel_h[:, 2:]
    slopes = texel_from_pixel[:, :2, :2] - uv[:, :, None] * texel_from_pixel[:, 2:, :2]
    return np.linalg.norm(slopes, axis=2) / np.abs(texel_h[:, 2:])


def _level(step: float, texels: int) -> int:
    """Return how many halvings make one pixel cover about one texel."""
    if step <= 1.0:
        return 0
    return min(int(log2(step) + 0.4), MAX_LEVEL, texels.bit_length() - 1)


def _draw(patch: _Patch, colour: Image, inverse_depth: Floats) -> None:
    """Draw the patch where it is nearer than what the picture shows so far."""
    x0, y0, x1, y1 = patch.box.tolist()
    behind = inverse_depth[y0:y1, x0:x1]
    own = _own_inverse_depth(patch)
    mask = _mask(patch)
    cv2.bitwise_and(mask, cv2.compare(own, behind, cv2.CMP_GT), mask)
    if not cv2.hasNonZero(mask):
        return
    texels = _warp(patch)
    opaque = cv2.compare(cv2.extractChannel(texels, 3), 127, cv2.CMP_GT)
    cv2.bitwise_and(mask, opaque, mask)
    cv2.copyTo(texels, mask, colour[y0:y1, x0:x1])
    cv2.copyTo(own, mask, behind)


def _own_inverse_depth(patch: _Patch) -> Floats:
    """Return inverse depth (h, w) over the patch's box, clamped to the range of its corners.

    Outside the outline, where the mask's rim may still reach, the inverse depth of a plane seen
    edge-on diverges.
    """
    x0, y0, x1, y1 = patch.box.tolist()
    a, b, c = patch.plane.tolist()
    columns = (a * np.arange(x0, x1) + c).astype(np.float32)
    rows = (b * np.arange(y0, y1)).astype(np.float32)
    own = np.add.outer(rows, columns)
    low, high = float(patch.outline[:, 2].min()), float(patch.outline[:, 2].max())
    cv2.min(cv2.max(own, low, own), high, own)
    return own


def _draw_sky(patch: _Patch, colour: Image, inverse_depth: Floats) -> None:
    x0, y0, x1, y1 = patch.box.tolist()
    mask = _mask(patch)
    mask[inverse_depth[y0:y1, x0:x1] > 0] = 0
    if cv2.hasNonZero(mask):
        cv2.copyTo(_warp(patch), mask, colour[y0:y1, x0:x1])


def _mask(patch: _Patch) -> Image:
    """Return the mask (h, w) of the patch's box: 255 inside its outline."""
    x0, y0, x1, y1 = patch.box.tolist()
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    points = np.round((patch.outline[:, :2] - (x0, y0)) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, points, 255, shift=4)
    if patch.edge == "hidden":
        cv2.polylines(mask, [points], True, 0, shift=4)
    return mask


def _warp(patch: _Patch) -> Image:
    """Return RGBA (h, w, 4) of the patch's box."""
    x0, y0, x1, y1 = patch.box.tolist()
    full = patch.texture.size
    image = patch.texture.level(*map(_level, patch.step.tolist(), full))
    box_shift = np.array([[1.0, 0, x0], [0, 1, y0], [0, 0, 1]])
    scale_u, scale_v = image.shape[1] / full[0], image.shape[0] / full[1]
    level_from_texel = np.array([[scale_u, 0, -0.5], [0, scale_v, -0.5], [0, 0, 1]])
    return cv2.warpPerspective(
        image,
        level_from_texel @ patch.texel_from_pixel @ box_shift,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
