"""Features of one image of a map at the points that it sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.feature_store import Arrays, Confidences, Features
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.files.posed_images import decode_image


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image whose features are wanted."""

    path: Path
    size_px: tuple[int, int]  # width and height
    pixels: NDArray[np.float64]  # (N, 2) where its points are

    def key(self, extractor: FeatureExtractor) -> str:
        """Stands for all that the outcome depends on; raises MapError without the image."""
        digest = hashlib.sha256(self.read())
        digest.update(self.pixels.tobytes())
        network = (extractor.sha256, extractor.max_side_px, extractor.device.type)
        digest.update(repr((network, extractor.network.runtime, self.pixels.shape)).encode())
        return digest.hexdigest()

    def read(self) -> bytes:
        """The image file; raises MapError where it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise MapError(f"{self.path} cannot be read ({error.strerror})") from None


def extract_features(content: bytes, task: ImageTask, extractor: FeatureExtractor) -> Arrays:
    """Extract features and confidences at the task's pixels and the image's descriptor, float16.

    content: of the image file, which need not exist where this runs.
    """
    pyramid = extractor.extract(decode_image(content, task.path, task.size_px))
    features, confidences = sample_at(pyramid, task.pixels)
    arrays = {"descriptor": retrieval.describe(pyramid)}
    for level, (feature, confidence) in enumerate(zip(features, confidences, strict=True)):
        arrays |= {f"features_{level}": feature, f"confidences_{level}": confidence}
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def by_level(arrays: Arrays) -> tuple[Features, Confidences]:
    """Features and confidences that `extract_features` returned, float32, coarse to fine."""
    levels = range((len(arrays) - 1) // 2)
    features = [arrays[f"features_{level}"].astype(np.float32) for level in levels]
    return features, [arrays[f"confidences_{level}"].astype(np.float32) for level in levels]


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
