"""A model of many images, and a build of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from helpers.scene import BOARDS, CAMERA, pose
from pixloc_ros.common.progress import silent
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.build import edit
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.map import Map

COUNT = 12


def write_moved(map_: Map, T_new_map: np.ndarray, output: Path) -> Map:
    """The same map in a frame of its own, without a datum."""
    names = map_.keyframe_names
    part = edit.MapPart(map_, np.arange(len(names)), names, map_.keyframe_camera, T_new_map)
    return edit.save([part], dict(map_.metadata) | {"datum": None}, output, True)


OPTIONS = LidarOptions(voxel_m=0.1, cells_per_image=200)


def make_model(folder: Path) -> ColmapModel:
    points = np.concatenate([board.points(0.1) for board in BOARDS])
    names = [f"drive 1/{i:03d}.png" for i in range(COUNT)]
    images = [PosedImage(n, folder / "images" / n, CAMERA, pose(i)) for i, n in enumerate(names)]
    return model_from_cloud(points, images, OPTIONS)[0]


def build(
    model: ColmapModel, folder: Path, output: Path, extractor=None, progress=silent, **options: Any
) -> Map:
    extractor = extractor or FeatureExtractor()
    options_ = BuildOptions(**options)
    return build_from_model(model, folder / "images", output, extractor, options_, progress)
