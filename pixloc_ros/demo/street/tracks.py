"""Track corners through the mapping images, by exact depth instead of matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.demo.street.lens import StreetLens
from pixloc_ros.demo.street.surfaces import Array, Image

CORNERS_PER_IMAGE = 850
CORNER_DISTANCE_PX = 6
LIFETIME_KEYFRAMES = 9
DEPTH_TOLERANCE = 0.02
SPREAD_LIMIT = 0.1
DEPTH_RANGE_M = (1.5, 60.0)


@dataclass(frozen=True, slots=True, eq=False)
class PosedView:
    """A mapping image with its depth: image_rgb (H, W, 3), depth_m (H, W), T_map_cam (4, 4)."""

    image_rgb: Image
    depth_m: NDArray[np.float32]
    T_map_cam: Array


@dataclass(slots=True, eq=False)
class Tracks:
    """Points (N, 3) in the map frame, their colours (N, 3), and which views observe them.

    observations: per view, pixels (M, 2), top left pixel centre (0, 0), and point indices (M,).
    """

    points: Array
    colours: Image
    observations: list[tuple[Array, NDArray[np.int64]]] = field(default_factory=list)


def build_tracks(views: Sequence[PosedView], lens: StreetLens, min_length: int = 3) -> Tracks:
    """Detect corners in every view, and track them through later views while they are visible."""
    points, colours = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    born = np.zeros(0, np.int64)
    observations = []
    for index, view in enumerate(views):
        alive = np.flatnonzero(born >= index - LIFETIME_KEYFRAMES)
        pixels, seen = project_visible(view, lens, points[alive])
        fresh = _new_corners(view, pixels[seen])
        numbers = np.concatenate([alive[seen], len(points) + np.arange(len(fresh))])
        observations.append((np.concatenate([pixels[seen], fresh]), numbers))
        points = np.concatenate([points, _unproject(view, lens, fresh)])
        colours = np.concatenate([colours, view.image_rgb[fresh[:, 1], fresh[:, 0]]])
        born = np.concatenate([born, np.full(len(fresh), index)])
    return _only_long(Tracks(points, colours, observations), min_length)


def project_visible(
    view: PosedView, lens: StreetLens, points: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Return pixels (N, 2) of map points, and whether the view's depth buffer shows them there."""
    T_cam_map = np.linalg.inv(view.T_map_cam)
    in_cam = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
    depth = np.where(in_cam[:, 2] > DEPTH_RANGE_M[0], in_cam[:, 2], np.nan)
    pixels = np.where(np.isnan(depth)[:, None], np.nan, lens.project(in_cam))
    height, width = view.depth_m.shape
    seen = np.all((pixels >= 2) & (pixels <= (width - 3, height - 3)), axis=1)
    inverse, spread = _inverse_depth(view, pixels[seen])
    same = np.abs(depth[seen] * inverse - 1) < DEPTH_TOLERANCE
    seen[seen] = same & (spread < SPREAD_LIMIT * inverse)
    return pixels, seen


def _inverse_depth(view: PosedView, pixels: Array) -> tuple[Array, Array]:
    """Return bilinear inverse depth (N,), exact on planes, and its range over the four pixels."""
    corner = np.floor(pixels).astype(int)
    (u, v), (fu, fv) = corner.T, (pixels - corner).T
    around = [view.depth_m[v + dv, u + du] for dv in (0, 1) for du in (0, 1)]
    a, b, c, d = inverse = 1.0 / np.array(around, np.float64).reshape(4, -1)
    value = (a * (1 - fu) + b * fu) * (1 - fv) + (c * (1 - fu) + d * fu) * fv
    return value, np.ptp(inverse, axis=0)


def _new_corners(view: PosedView, known: Array) -> NDArray[np.int64]:
    """Return new corner pixels (N, 2), on surfaces at moderate depth, not on edges."""
    wanted = CORNERS_PER_IMAGE - len(known)
    if wanted <= 0:
        return np.zeros((0, 2), np.int64)
    inverse = (1.0 / view.depth_m).astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(inverse, square) - cv2.erode(inverse, square)
    near, far = DEPTH_RANGE_M
    smooth = (spread < SPREAD_LIMIT * inverse) & (view.depth_m > near) & (view.depth_m < far)
    mask = smooth.astype(np.uint8) * 255
    mask[:4], mask[-4:], mask[:, :4], mask[:, -4:] = 0, 0, 0, 0
    for x, y in np.round(known).astype(int).tolist():
        cv2.circle(mask, (x, y), CORNER_DISTANCE_PX, 0, -1)
    grey = cv2.cvtColor(view.image_rgb, cv2.COLOR_RGB2GRAY)
    corners = cv2.goodFeaturesToTrack(grey, wanted, 0.01, CORNER_DISTANCE_PX, mask=mask)
    return np.zeros((0, 2), np.int64) if corners is None else corners[:, 0].astype(np.int64)


def _unproject(view: PosedView, lens: StreetLens, pixels: NDArray[np.int64]) -> Array:
    """Return map points (N, 3) of integer pixels."""
    depth = view.depth_m[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    rays = np.column_stack([lens.rays()[pixels[:, 1], pixels[:, 0]], np.ones(len(pixels))])
    return (rays * depth[:, None]) @ view.T_map_cam[:3, :3].T + view.T_map_cam[:3, 3]


def _only_long(tracks: Tracks, min_length: int) -> Tracks:
    """Drop points observed by fewer views, and renumber the rest."""
    numbers = [number for _, number in tracks.observations]
    length = np.bincount(np.concatenate(numbers), minlength=len(tracks.points))
    kept = length >= min_length
    renumbered = np.cumsum(kept) - 1
    observations = [
        (pixels[kept[number]], renumbered[number[kept[number]]])
        for pixels, number in tracks.observations
    ]
    return Tracks(tracks.points[kept], tracks.colours[kept], observations)
