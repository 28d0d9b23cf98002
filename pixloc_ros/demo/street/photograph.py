"""Take a picture of the street with the camera and in the conditions of a session."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pixloc_ros.demo.street import materials, weather
from pixloc_ros.demo.street.lens import StreetLens
from pixloc_ros.demo.street.render import RenderedView, render
from pixloc_ros.demo.street.sessions import StreetSession
from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.surfaces import Array, Floats, Image
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

ROWS_AT_ONCE = 4  # rows of a rolling shutter that share a pose
PUDDLE_TEXELS_PER_M, PUDDLE_PERIOD_M = 8.0, 64.0

PoseBefore = Callable[[float], Array]  # T_map_cam at a time before the stamp; negative: after it


def photograph(
    street: Street,
    session: StreetSession,
    lens: StreetLens,
    T_map_cam: PoseBefore,
    rng: np.random.Generator,
) -> RenderedView:
    """Return the picture with its depth, with weather, lens and rolling shutter applied."""
    if lens.readout_s:
        view = _rolling(street, session, lens, T_map_cam)
    elif lens.D:
        view = _bent(street, session, T_map_cam(0.0), lens, slice(None))
    else:
        view = _seen(street, session, T_map_cam(0.0), lens.K, (lens.width, lens.height))
    return RenderedView(session.exposure.apply(view.image_rgb, rng), view.depth_m)


def moving(T_before: Matrix, T_map_cam: Matrix, T_after: Matrix, period_s: float) -> PoseBefore:
    """Interpolate the camera's pose (4, 4) linearly between the frames before and after.

    Simulated odometry assumes the same motion between two frames.
    """

    def at(seconds: float) -> Array:
        other = T_before if seconds > 0 else T_after
        return se3.interpolate(T_map_cam, other, abs(seconds) / period_s)

    return at


def _rolling(
    street: Street, session: StreetSession, lens: StreetLens, T_map_cam: PoseBefore
) -> RenderedView:
    """Render bands of rows, each from where the camera was when its middle row was read."""
    bands = []
    for top in range(0, lens.height, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, lens.height - top)
        T = T_map_cam(lens.row_before_s(top + 0.5 * (rows - 1)))
        if lens.D:
            band = _bent(street, session, T, lens, slice(top, top + rows))
        else:
            fx, fy, cx, cy = lens.K
            band = _seen(street, session, T, (fx, fy, cx, cy - top), (lens.width, rows))
        bands.append(band)
    images, depths = ([getattr(b, n) for b in bands] for n in ("image_rgb", "depth_m"))
    return RenderedView(np.concatenate(images), np.concatenate(depths))


def _bent(
    street: Street, session: StreetSession, T_map_cam: Array, lens: StreetLens, rows: slice
) -> RenderedView:
    """Render some rows of the picture through a lens with distortion. Depth: of the nearest ray."""
    (fx, fy, cx, cy), size = lens.undistorted(rows)
    view = _seen(street, session, T_map_cam, (fx, fy, cx, cy), size)
    pixels = (lens.rays()[rows] * (fx, fy) + (cx, cy)).astype(np.float32)
    u, v = pixels[..., 0], pixels[..., 1]
    image_rgb = cv2.remap(view.image_rgb, u, v, cv2.INTER_CUBIC)
    # Inverse depth is linear on a plane; where two surfaces meet, the nearest sample decides.
    inverse = np.float32(1) / view.depth_m
    smooth, nearest = (
        cv2.remap(inverse, u, v, how) for how in (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    )
    one_surface = np.abs(smooth - nearest) < 0.02 * nearest
    with np.errstate(divide="ignore"):
        return RenderedView(image_rgb, 1 / np.where(one_surface, smooth, nearest))


def _seen(
    street: Street,
    session: StreetSession,
    T_map_cam: Array,
    K: tuple[float, float, float, float],
    size: tuple[int, int],
) -> RenderedView:
    view = render(street, T_map_cam, K, *size)
    image_rgb = view.image_rgb
    if session.wet:
        image_rgb = _on_wet_road(street, view, T_map_cam, K)
    if session.lamps:
        image_rgb = weather.headlights(image_rgb, view.depth_m)
    return RenderedView(image_rgb, view.depth_m)


def _on_wet_road(
    street: Street, view: RenderedView, T_map_cam: Array, K: tuple[float, float, float, float]
) -> Image:
    height, width = view.depth_m.shape
    mirrored = render(street, np.diag([1.0, 1.0, -1.0, 1.0]) @ T_map_cam, K, width, height)
    v, u = np.indices(view.depth_m.shape)
    rays_cam = np.stack([(u - K[2]) / K[0], (v - K[3]) / K[1], np.ones(u.shape)], -1)
    rays = rays_cam @ T_map_cam[:3, :3].T
    points = rays * np.minimum(view.depth_m, 1e3)[..., None] + T_map_cam[:3, 3]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return weather.wet_road(view.image_rgb, mirrored.image_rgb, points, rays, _puddles(points))


def _puddles(points: Array) -> Floats:
    """Return how smooth (H, W) the water is at map points (H, W, 3), 0..1; fixed for each place."""
    side = round(PUDDLE_PERIOD_M * PUDDLE_TEXELS_PER_M)
    pattern = materials.fractal((side, side), np.random.default_rng(0), (6, 16, 40))
    smooth = np.clip(0.5 + 0.6 * pattern, 0, 1).astype(np.float32)
    where = (points[..., :2] % PUDDLE_PERIOD_M * PUDDLE_TEXELS_PER_M).astype(np.float32)
    return cv2.remap(smooth, where[..., 0], where[..., 1], cv2.INTER_LINEAR)
