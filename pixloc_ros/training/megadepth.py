"""MegaDepth in the layout PixLoc was trained on: undistorted reconstructions, no depth maps.

The undistortion is that of D2-Net's scripts (COLMAP's image_undistorter per scene).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pixloc_ros.errors import DataError
from pixloc_ros.maps.build.builder import Progress
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.training.data_config import MegaDepthConfig
from pixloc_ros.training.layouts import expect, subfolders
from pixloc_ros.training.scenes import Array, Scene, TrainingView, pair_up, views_of_model
from pixloc_ros.training.upright import upright

LAYOUT = "Undistorted_SfM/<scene>/images and Undistorted_SfM/<scene>/sparse"
PARTS = ("images", "sparse")
SMALL = "image small"


def read_megadepth(
    config: MegaDepthConfig, skipped: Counter[str], progress: Progress | None = None
) -> list[Scene]:
    """The reconstructions; images that lie on their side are put upright.

    Raises DataError for another layout, MapError for a damaged model.
    """
    root = config.path / "Undistorted_SfM"
    names = config.scenes or subfolders(root, "*/sparse")
    expect(config.path, LAYOUT, [root / n / part for n in names for part in PARTS], names)
    scenes = []
    for name in progress(names, "Reading scenes") if progress else names:
        views, points_world = _read_scene(root / name, config, skipped)
        if views:
            scenes.append(pair_up(name, upright(views), points_world, config))
    return scenes


def _read_scene(
    folder: Path, config: MegaDepthConfig, skipped: Counter[str]
) -> tuple[list[TrainingView], Array]:
    model = read_model(folder / "sparse")
    views = views_of_model(model, folder / "images", config, skipped)
    if any(view.camera.model != "PINHOLE" for view in views):
        raise DataError(f"{folder / 'sparse'} has distorted cameras: expected the undistorted ones")
    large = [v for v in views if min(v.camera.width, v.camera.height) >= config.min_side_px]
    skipped[SMALL] += len(views) - len(large)
    return large, model.points_world
