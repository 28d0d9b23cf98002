"""Which keyframes are matched: neighbours in time and in space, and those that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage
from pixloc_ros.maps.build.triangulation import near_pairs
from pixloc_ros.maps.build.work_folder import Parts
from pixloc_ros.maps.files.posed_images import PosedImage, read_image

Pairs = list[tuple[int, int]]

DESCRIPTOR_SIDE_PX = 320  # of the image that the descriptor is of
MIN_SIMILARITY = 0.6  # of descriptors of one place
PLACE_M = 10.0  # between images that show the same
DRIFT_SHARE = 0.05  # of the way, by which odometry may be off


def sequence_pairs(keyframes: Sequence[KeyframeImage], neighbours: int) -> Pairs:
    """Each image with the next ones in time of the same drive, by any camera."""
    pairs = set()
    for drive in {keyframe.drive for keyframe in keyframes}:
        index = [i for i, keyframe in enumerate(keyframes) if keyframe.drive == drive]
        for position, i in enumerate(index):
            for j in index[position + 1 : position + 1 + neighbours]:
                pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


def distance_pairs(T_map_cam: Matrix) -> Pairs:
    """Each image with the nearest ones that look the same way."""
    return near_pairs(T_map_cam)


def place_pairs(
    images: Sequence[PosedImage],
    count: int,
    possible: NDArray[np.bool_],
    parts: Parts,
    progress: Progress,
) -> Pairs:
    """Each image with those most alike among the possible ones, a symmetric mask (N, N).

    Descriptors are those of retrieval, of reduced images; they are kept as parts.
    """
    if not count or not possible.any():
        return []
    descriptors = _descriptors(images, parts, progress)
    pairs = set()
    for i, descriptor in enumerate(descriptors):
        similarity = np.where(possible[i], descriptors @ descriptor, -1.0)
        for j in np.argsort(-similarity)[:count].tolist():
            if similarity[j] > MIN_SIMILARITY:
                pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


def apart_in_time(count: int, apart: int) -> NDArray[np.bool_]:
    """(N, N) pairs of images that are at least so many images from each other."""
    index = np.arange(count)
    return np.asarray(np.abs(index[:, None] - index) >= apart)


def within_drift(positions: Matrix) -> NDArray[np.bool_]:
    """(N, N) pairs that may be at one place, for all that odometry can have drifted between."""
    steps_m = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    way_m = np.concatenate([[0.0], np.cumsum(steps_m)])
    distance_m = np.linalg.norm(positions[:, None] - positions, axis=-1)
    return np.asarray(distance_m <= PLACE_M + DRIFT_SHARE * np.abs(way_m[:, None] - way_m))


def _descriptors(
    images: Sequence[PosedImage], parts: Parts, progress: Progress
) -> NDArray[np.float32]:
    extractor: FeatureExtractor | None = None
    found = []
    for image in progress(images, "Describing keyframes", len(images)):
        key = f"descriptor-{Path(image.name).as_posix().replace('/', '-')}"
        if key not in parts:
            extractor = extractor or FeatureExtractor(max_side_px=DESCRIPTOR_SIDE_PX)
            pyramid = extractor.extract(read_image(image.path, image.camera))
            parts.put(key, {"descriptor": retrieval.describe(pyramid)})
        found.append(parts.get(key)["descriptor"])
    return np.stack(found).astype(np.float32)
