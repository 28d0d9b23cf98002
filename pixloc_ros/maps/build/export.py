"""Write maps for other programs, as COLMAP models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import atomic_folder
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.files.colmap_writer import PIXEL_CENTRE, ImageToWrite, write_model
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import Tile


def write_colmap(map_: Map, folder: Path) -> None:
    """Write keyframes, points and which keyframe sees which point, in the map's frame.

    Pixels are projections of the points: what the images showed is not in a map. Raises MapError
    for a folder that exists, and for a map of which a tile is refused.
    """
    if folder.exists():
        raise MapError(f"{folder} exists: name a folder that does not")
    whole = map_.whole()
    images = [_image(map_, whole, int(keyframe)) for keyframe in whole.keyframes]
    with atomic_folder(folder) as part:
        write_model(part, map_.cameras, images, whole.points_map(), _colours(whole))


def _image(map_: Map, whole: Tile, keyframe: int) -> ImageToWrite:
    T_cam_map = se3.inverse(map_.keyframe_T_map_cam[keyframe])
    points = whole.observation_point[whole.observations(keyframe)].astype(np.int64)
    in_cam = se3.transform(T_cam_map, whole.points_map()[points])
    camera = int(map_.keyframe_camera[keyframe])
    pixels, _ = map_.cameras[camera].project(torch.from_numpy(in_cam))
    name = map_.keyframe_names[keyframe]
    return ImageToWrite(name, T_cam_map, pixels.numpy() + PIXEL_CENTRE, points, camera)


def _colours(whole: Tile) -> NDArray[np.uint8]:
    """(P, 3) grey by priority: maps keep no colours."""
    grey = 55 + 200 * np.clip(whole.point_priority, 0.0, 1.0)
    return np.repeat(grey.astype(np.uint8)[:, None], 3, axis=1)
