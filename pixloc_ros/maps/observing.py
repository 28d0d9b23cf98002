"""What a keyframe contributes to a map: its image, the points it sees and their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.rows import Confidences, Features


def find_images(images: Sequence[ColmapImage], folder: Path) -> list[Path]:
    """Paths of the images; raises MapError when some are not in the folder."""
    paths = [folder / image.name for image in images]
    missing = [image.name for image, path in zip(images, paths, strict=True) if not path.is_file()]
    if missing:
        raise MapError(
            f"{folder} lacks {len(missing)} of the model's {len(images)} images, the first is "
            f"'{missing[0]}'; give the folder that the names in the model start from"
        )
    return paths


def read_image(path: Path, camera: Camera) -> NDArray[np.uint8]:
    """RGB (H, W, 3) as the camera took it; raises MapError for another size than the camera's."""
    # COLMAP does not turn images by their EXIF orientation either.
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise MapError(f"{path} cannot be read as an image; is the file whole?")
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise MapError(
            f"{path} is {width}x{height}, its camera in the model {camera.width}x{camera.height}; "
            f"give the images that the model was made from"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def visible_points(
    image: ColmapImage, model: ColmapModel, usable: NDArray[np.bool_], max_error_px: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Points (N,) of the model that the image sees, and the pixels (N, 2) they project to.

    usable: (P,) points to consider. Observations whose keypoint is farther than max_error_px
    from the projected point are mismatches, and left out.
    """
    ids, keypoint = np.unique(image.point_ids, return_index=True)
    keypoint, ids = keypoint[ids >= 0], ids[ids >= 0]
    points = np.searchsorted(model.point_ids, ids)
    points_cam = se3.transform(image.T_cam_world, model.points_world[points])
    camera = model.cameras[image.camera_id]
    projected, in_image = camera.project(torch.from_numpy(points_cam))
    pixels = projected.numpy()
    errors_px = np.linalg.norm(pixels - image.pixels[keypoint], axis=-1)
    good = in_image.numpy() & (errors_px <= max_error_px) & usable[points]
    return points[good], pixels[good]


def sample_at(pyramid: FeaturePyramid, pixels: NDArray[np.float64]) -> tuple[Features, Confidences]:
    """Features and confidences per level at pixels (N, 2), coarse to fine.

    Near the border a point may lie outside a coarse map: there its confidence is zero, so that it
    still serves at the finer levels.
    """
    sampled = pyramid.sample(torch.from_numpy(pixels).to(pyramid.levels[0].rows))
    features = [feature.cpu().numpy() for feature, _, _ in sampled]
    confidences = [(confidence * valid).cpu().numpy() for _, confidence, valid in sampled]
    return features, confidences
