"""What the serving keyframes observed, and which of it may be in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps import occlusion
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.serving_keyframes import ServingKeyframes
from pixloc_ros.maps.tiles import Tile

MARGIN_SHARE = 0.2  # of the image's size: the prior is not exact, points beside the image may be in


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """A camera at the prior: its pose in the view's local frame, and its image with a margin."""

    origin: NDArray[np.float64]  # (3,) map coordinates of the local frame, whose axes are the map's
    T_local_cam: NDArray[np.float64]  # (4, 4)
    wide: Camera

    @classmethod
    def of(cls, T_map_cam: NDArray[np.float64], camera: Camera) -> Viewpoint:
        """Choose the local frame near a camera pose (4, 4), and widen its image."""
        origin, T_local_cam = np.round(T_map_cam[:3, 3]), T_map_cam.copy()
        T_local_cam[:3, 3] -= origin
        size = camera.size.double().cpu()
        wide = camera.to("cpu", torch.float64).crop(
            (-MARGIN_SHARE * size).tolist(), ((1 + 2 * MARGIN_SHARE) * size).tolist()
        )
        return cls(origin, T_local_cam, wide)

    def project(
        self, points_local: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return pixels (N, 2) of points (N, 3) in the wide image, and which points are in it."""
        points_cam = se3.transform(se3.inverse(self.T_local_cam), points_local)
        pixels, in_image = self.wide.project(torch.from_numpy(points_cam))
        return pixels.numpy(), in_image.numpy()


@dataclass(frozen=True, slots=True)
class Observations:
    """The observations (O,) of the serving keyframes."""

    tile: NDArray[np.intp]  # index in the map
    row: NDArray[np.int32]  # of the features, in the tile
    keyframe: NDArray[np.intp]
    point_id: NDArray[np.int32]
    points_local: NDArray[np.float64]  # (O, 3)
    priority: NDArray[np.float32]  # of the point
    depth_sigma: NDArray[np.float32]  # of the point, relative to its distance


def collect_observations(
    map_: Map, serving: ServingKeyframes, origin: NDArray[np.float64]
) -> Observations:
    """Return all observations of the serving keyframes, in their order."""
    parts = [_observations_of(map_, k, serving.tiles, origin) for k in serving.index.tolist()]
    return Observations(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _observations_of(
    map_: Map, keyframe: int, tiles: dict[int, Tile], origin: NDArray[np.float64]
) -> tuple[NDArray, ...]:
    """Columns of `Observations`."""
    index = int(map_.keyframe_tile[keyframe])
    tile = tiles[index]
    own = tile.observations(keyframe)
    point = tile.observation_point[own]
    to_local = np.array(map_.metadata.tiles[index].origin) - origin  # float64
    return (
        np.full(len(point), index),
        tile.observation_row[own],
        np.full(len(point), keyframe),
        tile.point_id[point],
        tile.points[point] + to_local,
        tile.point_priority[point],
        tile.point_depth_sigma[point],
    )


@dataclass(frozen=True, slots=True)
class ObservedPoints:
    """The distinct points (P,) of some observations (O,), by ascending id."""

    of_observation: NDArray[np.intp]  # (O,) the point of each observation, 0..P-1
    first: NDArray[np.intp]  # (P,) the first observation of each point
    pixels: NDArray[np.float64]  # (P, 2) in the wide image
    visible: NDArray[np.bool_]  # (P,) whether the image may show the point


def distinct_points(
    map_: Map,
    serving: ServingKeyframes,
    observed: Observations,
    viewpoint: Viewpoint,
    config: ViewConfig,
    point_ids: NDArray[np.int32] | None,
) -> ObservedPoints:
    """Find the distinct points, and which of them may be seen from the viewpoint.

    point_ids: (N,) of the only points that count as visible; None: all may.
    """
    first, of_observation = _distinct(observed.point_id)
    pixels, visible = viewpoint.project(observed.points_local[first])
    if config.cull_hidden and map_.keyframe_depth_m is not None:
        visible &= ~_hidden(map_, serving.index, observed.points_local[first], viewpoint)
    if point_ids is not None:
        visible &= np.isin(observed.point_id[first], point_ids)
    return ObservedPoints(of_observation, first, pixels, visible)


def _distinct(ids: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of ids (O,), where each comes first, by ascending id, and which of these each one is.

    As np.unique tells, but faster.
    """
    order = np.argsort(ids, kind="stable")
    new = np.diff(ids[order], prepend=-1) > 0
    number = np.empty(len(ids), np.intp)
    number[order] = np.cumsum(new) - 1
    return order[new], number


def _hidden(
    map_: Map,
    keyframes: NDArray[np.intp],
    points_local: NDArray[np.float64],
    viewpoint: Viewpoint,
) -> NDArray[np.bool_]:
    """(N,) which points are behind what the keyframes saw, from the prior."""
    assert map_.keyframe_depth_m is not None
    T_local_map = se3.make(np.eye(3), -viewpoint.origin)
    occluders = [
        occlusion.surfaces(
            map_.keyframe_depth_m[k],
            map_.metadata.cameras[map_.keyframe_camera[k]].camera(),
            T_local_map @ map_.keyframe_T_map_cam[k],
        )
        for k in keyframes
    ]
    T_cam_local = se3.inverse(viewpoint.T_local_cam)
    return occlusion.hidden(points_local, occluders, T_cam_local, viewpoint.wide)
