"""Which keyframes are matched: neighbours in time and in space, and those that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage
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


@dataclass(frozen=True, slots=True, eq=False)
class PossiblePlaces:
    """Which images may show the place of another although they are apart in time.

    positions: (N, 3) by odometry, as far as that is known to be right; None where nothing is.
    """

    count: int
    apart: int  # images in between, at least
    positions: Matrix | None = None

    def of(self, image: int) -> NDArray[np.bool_]:
        """(N,) for one image."""
        apart = np.abs(np.arange(self.count) - image) >= self.apart
        if self.positions is None:
            return np.asarray(apart)
        steps_m = np.linalg.norm(np.diff(self.positions, axis=0), axis=-1)
        way_m = np.concatenate([[0.0], np.cumsum(steps_m)])
        distance_m = np.linalg.norm(self.positions - self.positions[image], axis=-1)
        near = distance_m <= PLACE_M + DRIFT_SHARE * np.abs(way_m - way_m[image])
        return np.asarray(apart & near)


def place_pairs(
    images: Sequence[PosedImage],
    count: int,
    possible: PossiblePlaces,
    parts: Parts,
    progress: Progress,
) -> Pairs:
    """Each image with those most alike of the possible ones.

    Descriptors are those of retrieval, of reduced images; they are kept as parts.
    """
    if not count or not any(possible.of(i).any() for i in range(len(images))):
        return []
    descriptors = _descriptors(images, parts, progress)
    pairs = set()
    for i, descriptor in enumerate(descriptors):
        similarity = np.where(possible.of(i), descriptors @ descriptor, -1.0)
        for j in np.argsort(-similarity)[:count].tolist():
            if similarity[j] > MIN_SIMILARITY:
                pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


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
