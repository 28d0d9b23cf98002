"""Label each pixel of a rendered view, from the exact geometry of the street."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixloc_ros.demo.street.furniture import CAR_WIDTH_M, Car
from pixloc_ros.demo.street.ground import FACADE_M
from pixloc_ros.demo.street.render import RenderedView
from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.surfaces import Array

CLASSES = ("sky", "road and pavement", "cars", "trees, lamps, balconies", "houses")
SKY, GROUND, CARS, FURNITURE, HOUSES = range(len(CLASSES))
GROUND_TOP_M = 0.18  # above the kerb
CAR_TOP_M = 2.8  # trees hang over some
MARGIN_M = 0.1  # around cars, and in front of facades


def label(street: Street, view: RenderedView, T_map_cam: Array, K: ArrayLike) -> NDArray[np.uint8]:
    """Return indices into CLASSES (H, W). The view was rendered with T_map_cam and K."""
    labels = np.full(view.depth_m.shape, SKY, np.uint8)
    seen = np.isfinite(view.depth_m)
    points = _points(view, T_map_cam, K)[seen]
    x, y, z = points.T
    before_facade = np.abs(y - street.layout.centre(x)) < FACADE_M - MARGIN_M
    shown = np.where(before_facade, FURNITURE, HOUSES)
    for car in street.cars:
        shown[_within(car, points)] = CARS
    shown[z < GROUND_TOP_M] = GROUND
    labels[seen] = shown
    return labels


def _points(view: RenderedView, T_map_cam: Array, K: ArrayLike) -> Array:
    """(H, W, 3) in the map frame."""
    fx, fy, cx, cy = np.asarray(K, np.float64)
    v, u = np.indices(view.depth_m.shape)
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], -1)
    with np.errstate(invalid="ignore"):  # rays to the sky are infinite
        return (rays * view.depth_m[..., None]) @ T_map_cam[:3, :3].T + T_map_cam[:3, 3]


def _within(car: Car, points: Array) -> NDArray[np.bool_]:
    offset = points[:, :2] - (car.x, car.y)
    cos, sin = np.cos(car.heading_rad), np.sin(car.heading_rad)
    along = offset @ (cos, sin)
    aside = offset @ (-sin, cos)
    half_length, half_width = 0.5 * car.length + MARGIN_M, 0.5 * CAR_WIDTH_M + MARGIN_M
    low = points[:, 2] < CAR_TOP_M
    return low & (np.abs(along) < half_length) & (np.abs(aside) < half_width)
