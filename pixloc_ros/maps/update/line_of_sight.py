"""What stands where a map point was: the point's surface, something nearer, or nothing.

Features of one frame, taken along the ray through the point at some depth, are found again in the
frames before and after where that depth is the depth of what is there (a plane sweep, Collins,
CVPR 1996, at single points). This tells a wall at night, which looks different but is where it was,
from the place of a car that has left, which looks different because other things are seen there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix

RANGES = np.geomspace(0.4, 4.0, 41)  # tried, in units of the range of the point
AT = np.abs(np.log(RANGES)) < 0.06
NEARER, FARTHER = RANGES < 0.83, RANGES > 1.2
MIN_PARALLAX_PX = 4.0  # between the point and one 30 % farther, seen from another frame
PARALLAX_RANGE = np.array([1.0, 1.3])


@dataclass(frozen=True, slots=True)
class PosedPyramid:
    """The features of a frame, and where its camera was."""

    pyramid: FeaturePyramid
    camera: Camera
    T_map_cam: Matrix
    corners_px: NDArray[np.float32]  # (M, 2) where its image has texture

    @property
    def finer(self) -> FeaturePyramid:
        """The two finer levels: the coarse one cannot tell depths apart."""
        return replace(self.pyramid, levels=self.pyramid.levels[-2:])


@dataclass(frozen=True, slots=True)
class LineOfSight:
    """Mean cosine (N,) of features at, before and behind each of some points; -1 if unknown."""

    at: NDArray[np.float32]
    nearer: NDArray[np.float32]
    farther: NDArray[np.float32]
    informative: NDArray[np.bool_]  # (N,) there is parallax enough to tell


def look_along(
    points_map: Matrix, frame: PosedPyramid, others: Sequence[PosedPyramid]
) -> LineOfSight:
    """Compare a frame with others along the rays through points (N, 3) that it has in view."""
    if not len(points_map):
        none = np.zeros(0, np.float32)
        return LineOfSight(none, none, none, np.zeros(0, bool))
    centre = frame.T_map_cam[:3, 3]
    rays = points_map - centre
    features = [part[0] for part in frame.finer.sample(_pixels(points_map, frame)[0])]
    total = np.zeros((len(rays), len(RANGES)), np.float32)
    count = np.zeros(total.shape, np.int32)
    parallax_px = np.zeros(len(rays))
    for other in others:
        along = centre + rays[:, None] * RANGES[:, None]
        pixels, in_view = _pixels(along.reshape(-1, 3), other)
        cosine = _mean_cosine(other, pixels, features)
        total += np.where(in_view.reshape(total.shape), cosine, 0.0)
        count += in_view.reshape(total.shape)
        parallax_px = np.maximum(parallax_px, _parallax_px(centre, rays, other))
    cosine = np.where(count > 0, total / np.maximum(count, 1), -1.0)
    return LineOfSight(
        at=cosine[:, AT].max(1, initial=-1.0),
        nearer=cosine[:, NEARER].max(1, initial=-1.0),
        farther=cosine[:, FARTHER].max(1, initial=-1.0),
        informative=(parallax_px > MIN_PARALLAX_PX) & (count[:, AT] > 0).all(1),
    )


def _pixels(points_map: Matrix, frame: PosedPyramid) -> tuple[Tensor, NDArray[np.bool_]]:
    points_cam = se3.transform(se3.inverse(frame.T_map_cam), points_map)
    pixels, in_view = frame.camera.project(torch.from_numpy(points_cam))
    return pixels.to(frame.pyramid.levels[0].rows), in_view.numpy()


def _mean_cosine(
    other: PosedPyramid, pixels: Tensor, features: Sequence[Tensor]
) -> NDArray[np.float32]:
    """(N, R) of the two finer levels, of pixels (N * R, 2) and features (N, C) per level."""
    sampled = [part[0] for part in other.finer.sample(pixels)]
    levels = [
        torch.einsum("nrc,nc->nr", there.view(len(here), len(RANGES), -1), here)
        for there, here in zip(sampled, features, strict=True)
    ]
    return torch.stack(levels).mean(0).cpu().numpy()


def _parallax_px(centre: Matrix, rays: Matrix, other: PosedPyramid) -> NDArray[np.float64]:
    """(N,) motion in another frame from a point to one farther on its ray; 0 out of view."""
    along = centre + rays[:, None] * PARALLAX_RANGE[:, None]
    pixels, in_view = _pixels(along.reshape(-1, 3), other)
    moved = (pixels[1::2] - pixels[::2]).norm(dim=-1).cpu().numpy()
    return np.where(in_view[::2], np.nan_to_num(moved), 0.0)
