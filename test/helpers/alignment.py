"""A small textured scene to align, with known poses."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.alignment.robust import RobustCost
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps.view import FurtherObservations, MapView

WIDTH, HEIGHT = 320, 192


CAMERA = Camera.create("PINHOLE", (WIDTH, HEIGHT), (200, 200), (159.5, 95.5))


STRIDES, DIMS = (16, 4, 2), (32, 24, 16)


DAMPING = torch.full((3, 6), 1e-3)


PLANE = torch.tensor([0.1, -0.25, 1.0, 8.0], dtype=torch.float64)  # n.x = d in the map


def plane_features(points: torch.Tensor, level: int, period_m: float | None = None) -> torch.Tensor:
    """Smooth unit features (..., C) of places on the plane; coarser levels vary more slowly.

    period_m: they repeat along x.
    """
    rng = np.random.default_rng(level)
    wavelength_m = (8.0, 2.5, 1.2)[level]
    B = torch.from_numpy(rng.standard_normal((2, DIMS[level] // 2))) * 2 * np.pi / wavelength_m
    if period_m:
        B[0] = torch.from_numpy(rng.choice([-1, 1], DIMS[level] // 2)) * 2 * np.pi / period_m
    phase = points[..., :2] @ B + torch.from_numpy(rng.uniform(0, 6, DIMS[level] // 2))
    return F.normalize(torch.cat([phase.sin(), phase.cos()], -1), dim=-1)


def render_level(T_cam_map: Pose, level: int, period_m: float | None = None) -> FeatureLevel:
    """Features of the plane in every pixel of the level, by intersecting its ray."""
    stride = STRIDES[level]
    height, width = HEIGHT // stride, WIDTH // stride
    camera = CAMERA.scale(1 / stride)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double()
    rays[..., :2] = (rays[..., :2] - camera.center) / camera.focal
    center = -(T_cam_map.R.T @ T_cam_map.t)
    rays = rays @ T_cam_map.R
    depth = (PLANE[3] - PLANE[:3] @ center) / (rays @ PLANE[:3])
    features = plane_features(center + depth[..., None] * rays, level, period_m)
    rows = torch.cat([features, torch.ones_like(features[..., :1])], -1).flatten(0, 1).float()
    return FeatureLevel(rows, height, width, stride, torch.tensor([WIDTH, HEIGHT]).float())


def scene(
    count: int = 500,
    origin: tuple[float, ...] = (0, 0, 0),
    half_width_m: float = 6.0,
    period_m: float | None = None,
) -> tuple[FeaturePyramid, MapView]:
    """Query at the identity pose, and points of the plane in its view."""
    rng = np.random.default_rng(7)
    xy = torch.from_numpy(rng.uniform([-half_width_m, -4], [half_width_m, 4], (count, 2)))
    z = (PLANE[3] - xy @ PLANE[:2]) / PLANE[2]
    points = torch.cat([xy, z[:, None]], -1)
    here = Pose.identity(like=points)
    pyramid = FeaturePyramid(
        tuple(render_level(here, level, period_m) for level in range(3)), (1.0, 1.0)
    )
    view = MapView(
        origin=np.array(origin, dtype=np.float64),
        points=points.float(),
        point_ids=np.arange(count, dtype=np.int32),
        features=tuple(plane_features(points, level, period_m).float() for level in range(3)),
        confidences=(torch.ones(count),) * 3,
        keyframes=("a",),
        nearest_m=0.0,
    )
    return pyramid, view


def noisy(view: MapView, seed: int) -> MapView:
    """The view with other features on the fine level, as another keyframe would have them."""
    noise = torch.randn(view.features[2].shape, generator=torch.Generator().manual_seed(seed))
    fine = F.normalize(view.features[2] + 0.2 * noise, dim=-1)
    return replace(view, features=(*view.features[:2], fine))


def with_further(view: MapView, other: MapView) -> MapView:
    """The view with the fine features of another as further observations."""
    rows = torch.arange(len(view))
    further = FurtherObservations(rows, other.features[2], other.confidences[2])
    return replace(view, further=further)


def system_of(level: int = 2, count: int = 500, **changes: torch.Tensor) -> LevelSystem:
    pyramid, view = scene(count)
    parts = {
        "points": view.points,
        "reference": view.features[level],
        "confidence": view.confidences[level],
    } | changes
    camera = pyramid.camera(CAMERA.to(torch.float32), pyramid.levels[level])
    return LevelSystem(pyramid.levels[level], camera, robust=RobustCost(0.1), **parts)


def poses_of(*twists: list[float]) -> Pose:
    return Pose.exp(torch.tensor(twists, dtype=torch.float32))


def observations(pyramid: FeaturePyramid, view: MapView) -> list[CameraObservation]:
    return [CameraObservation(pyramid, CAMERA.to(torch.float32), view)]


OFFSET = [0.4, -0.2, 0.3, 0.01, 0.04, -0.02]
