"""COLMAP models changed in memory: images left out or renamed, points moved, models joined."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pixloc_ros.common import image_files
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel

MAX_STRETCH_PX = 1.0  # by which a resized image may miss the model's aspect ratio


def without_images(model: ColmapModel, names: Collection[str]) -> ColmapModel:
    """Leave out images, and the points that nobody else sees; raises MapError if none is left."""
    images = tuple(image for image in model.images if image.name not in names)
    if not images:
        raise MapError("no image of the model is left: all of them are queries")
    seen = np.unique(np.concatenate([image.point_ids for image in images]))
    kept = np.isin(model.point_ids, seen)
    used = {image.camera_id for image in images}
    return replace(
        model,
        cameras={i: camera for i, camera in model.cameras.items() if i in used},
        images=images,
        point_ids=model.point_ids[kept],
        points_world=model.points_world[kept],
        errors_px=model.errors_px[kept],
    )


def with_depth(model: ColmapModel, read_depth: Callable[[str], Matrix]) -> ColmapModel:
    """Move every point along its ray to the depth (H, W, metres, NaN where unknown) of an image.

    Of several images that see a point the last one counts; what an image has no depth for it does
    not see. Raises MapError where no point is left.
    """
    points_world, images = model.points_world.copy(), []
    known = np.zeros(len(points_world), bool)
    for image in model.images:
        keypoint = np.flatnonzero(image.point_ids >= 0)
        rows = np.searchsorted(model.point_ids, image.point_ids[keypoint])
        points_cam = se3.transform(image.T_cam_world, model.points_world[rows])
        depth_m = _depth_at(points_cam, model.cameras[image.camera_id], read_depth(image.name))
        found = np.isfinite(depth_m)
        at_depth = points_cam[found] * (depth_m[found] / points_cam[found, 2])[:, None]
        points_world[rows[found]] = se3.transform(se3.inverse(image.T_cam_world), at_depth)
        known[rows[found]] = True
        point_ids = image.point_ids.copy()
        point_ids[keypoint[~found]] = -1
        images.append(replace(image, point_ids=point_ids))
    if not known.any():
        raise MapError(
            "no point of the model has a depth: are these the depth images of its images?"
        )
    return replace(
        model,
        images=tuple(images),
        point_ids=model.point_ids[known],
        points_world=points_world[known],
        errors_px=model.errors_px[known],
    )


def _depth_at(points_cam: Matrix, camera: Camera, depth_m: Matrix) -> Matrix:
    """(N,) depth of the pixels that points (N, 3) project to, NaN where there is none."""
    pixels, visible = camera.project(torch.from_numpy(points_cam))
    column, row = np.nan_to_num(pixels.numpy()).round().astype(int).T
    inside = visible.numpy() & (column >= 0) & (row >= 0)
    inside &= (column < depth_m.shape[1]) & (row < depth_m.shape[0])
    found = np.full(len(points_cam), np.nan)
    found[inside] = depth_m[row[inside], column[inside]]
    return found


def renamed(model: ColmapModel, new_name: Callable[[str], str]) -> ColmapModel:
    """Give the images other names, which decide their order."""
    images = (replace(image, name=new_name(image.name)) for image in model.images)
    return replace(model, images=tuple(sorted(images, key=lambda image: image.name)))


def joined(models: Sequence[ColmapModel]) -> ColmapModel:
    """Put models of one world together; nothing in them is taken for the same but names.

    Of images of one name the first counts.
    """
    cameras: dict[int, Camera] = {}
    images: dict[str, ColmapImage] = {}
    ids, first_point = [], 0
    for model in models:
        number = {id_: len(cameras) + k for k, id_ in enumerate(model.cameras)}
        cameras |= {number[id_]: camera for id_, camera in model.cameras.items()}
        for image in model.images:
            seen = image.point_ids >= 0
            points = np.where(seen, image.point_ids + first_point, -1)
            moved = replace(
                image,
                image_id=len(images) + 1,
                camera_id=number[image.camera_id],
                point_ids=points,
            )
            images.setdefault(image.name, moved)
        ids.append(model.point_ids + first_point)
        first_point += int(model.point_ids[-1]) + 1
    return ColmapModel(
        cameras=cameras,
        images=tuple(sorted(images.values(), key=lambda image: image.name)),
        unregistered=tuple(name for model in models for name in model.unregistered),
        point_ids=np.concatenate(ids),
        points_world=np.concatenate([model.points_world for model in models]),
        errors_px=np.concatenate([model.errors_px for model in models]),
    )


def resized_to_files(model: ColmapModel, images_dir: Path) -> ColmapModel:
    """Scale cameras and keypoints of a model that was made from reduced images.

    Raises MapError for a missing image and for one of another shape than its camera's.
    """
    sizes = file_sizes({image.name: image.camera_id for image in model.images}, images_dir)
    cameras = {i: resized(camera, sizes[i], images_dir) for i, camera in model.cameras.items()}
    images = []
    for image in model.images:
        factor = np.divide(sizes[image.camera_id], model.cameras[image.camera_id].size.numpy())
        images.append(replace(image, pixels=(image.pixels + 0.5) * factor - 0.5))
    return replace(model, cameras=cameras, images=tuple(images))


def resized(camera: Camera, size_px: tuple[int, int], where: Path) -> Camera:
    """The camera of the image in its full size; raises MapError where the shape is another."""
    width, height = size_px
    if abs(width * camera.height / camera.width - height) > MAX_STRETCH_PX:
        raise MapError(
            f"images in {where} are {width}x{height}, their model's {camera.width}x"
            f"{camera.height}: not the same shape; give the images the model was made from"
        )
    return camera.scale([width / camera.width, height / camera.height])


def file_sizes(camera_of: Mapping[str, int], images_dir: Path) -> dict[int, tuple[int, int]]:
    """Width and height by camera of the image files; raises MapError where they contradict."""
    sizes: dict[int, tuple[int, int]] = {}
    for name, camera_id in camera_of.items():
        size = image_files.read_size(images_dir / name)
        if size is None:
            raise MapError(
                f"{images_dir / name} is missing or no PNG or JPEG; give the folder that the "
                f"names in the model start from"
            )
        if sizes.setdefault(camera_id, size) != size:
            raise MapError(f"{images_dir / name} is {size}, other images of its camera are not")
    return sizes
