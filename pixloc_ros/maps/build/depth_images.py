"""Depth images, one beside each posed image, as a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.rays import AHEAD, rays
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build import visibility
from pixloc_ros.maps.files.posed_images import PosedImage

INVALID = 65535  # as 0, of 16-bit images: nothing measured
EDGE_RATIO = 1.05  # of depths within 3x3 pixels; at edges sensors report what is nowhere
SUFFIXES = (".png", ".tif", ".tiff", ".exr")
MERGE_POINTS = 4_000_000  # thinned together whenever there are so many


def read_depth_cloud(
    images: Sequence[PosedImage],
    folder: str | Path,
    units_per_m: float,
    max_depth_m: float,
    voxel_m: float,
    progress: Progress = silent,
) -> Matrix:
    """Points (N, 3) in the map, one per voxel, of the depth images of all images.

    Raises MapError for depth images that are missing, cannot be read, or hold nothing.
    """
    paths = find_depth_images(images, Path(folder))
    pairs = list(zip(images, paths, strict=True))
    clouds: list[Matrix] = []
    for image, path in progress(pairs, "Reading depth", len(pairs)):
        points_cam = back_project(_read(path) / units_per_m, image.camera, max_depth_m)
        clouds.append(_thinned(se3.transform(image.T_map_cam, points_cam), voxel_m))
        if sum(map(len, clouds[1:])) > MERGE_POINTS:
            clouds = [_thinned(np.concatenate(clouds), voxel_m)]
    points = _thinned(np.concatenate(clouds), voxel_m)
    if not len(points):
        raise MapError(
            f"depth images in {folder} hold nothing up to {max_depth_m:g} m; is --depth-scale "
            f"their units per metre?"
        )
    return points


def find_depth_images(images: Sequence[PosedImage], folder: Path) -> list[Path]:
    """The depth image of each: of the same name, or with `.depth` where it has `.color`.

    Raises MapError where some have none.
    """
    found = [_depth_image_of(image, folder) for image in images]
    missing = [image.name for image, path in zip(images, found, strict=True) if path is None]
    if missing:
        raise MapError(
            f"{folder} lacks depth images of {len(missing)} of {len(images)} images, the first is "
            f"'{missing[0]}'; name them alike, or .color and .depth"
        )
    return [path for path in found if path is not None]


def _depth_image_of(image: PosedImage, folder: Path) -> Path | None:
    stem = Path(image.name).with_suffix("")
    names = [str(stem), str(stem).replace(".color", ".depth"), f"{stem}.depth"]
    candidates = (folder / (name + suffix) for name in names for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file() and path != image.path), None)


def back_project(depth_m: Matrix, camera: Camera, max_depth_m: float) -> Matrix:
    """Points (N, 3) in the camera, of a depth image (H, W) that shows what the camera's shows.

    It may have another size than the camera's images. Depth is along the optical axis; pixels
    without one, beyond max_depth_m and at edges between surfaces give no point.
    Raises MapError for a fisheye.
    """
    if camera.model not in AHEAD:
        raise MapError(
            f"depth images of {camera.model} cameras are not read; undistort them to one of "
            f"{', '.join(AHEAD)}"
        )
    height, width = depth_m.shape
    scaled = camera.scale([width / camera.width, height / camera.height])
    row, column = np.nonzero(usable(depth_m, max_depth_m))
    pixels = np.column_stack([column, row]).astype(np.float64)
    return rays(pixels, scaled) * depth_m[row, column][:, None]


def usable(depth_m: Matrix, max_depth_m: float) -> NDArray[np.bool_]:
    """Which pixels (H, W) hold a depth up to a limit, and are not at the edge of a surface."""
    measured = np.isfinite(depth_m) & (depth_m > 0)
    window = np.ones((3, 3), np.uint8)
    far = cv2.dilate(np.where(measured, depth_m, 0.0), window)
    near = cv2.erode(np.where(measured, depth_m, np.inf), window)
    return measured & (depth_m <= max_depth_m) & (near > far / EDGE_RATIO)


def _read(path: Path) -> Matrix:
    """Depth (H, W) in the file's units, NaN where nothing was measured."""
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2 or depth.dtype == np.uint8:
        raise MapError(f"{path} is no depth image: 16 bit or float, one channel")
    values = depth.astype(np.float64)
    values[(depth == 0) | (depth == INVALID)] = np.nan
    return values


def _thinned(points: Matrix, voxel_m: float) -> Matrix:
    return points[visibility.thin(points, voxel_m)] if len(points) else points
