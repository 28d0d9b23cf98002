"""What a peer consists of: keypoints, and how those of two images are matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Of one image of (width, height) `size`. The centre of the top-left pixel is (0, 0)."""

    pixels: NDArray[np.float32]  # (N, 2)
    descriptors: NDArray[np.float32]  # (N, D)
    size: tuple[int, int]


class Matcher(Protocol):
    """A detector with descriptors, and a way to match them."""

    def detect(self, image_rgb: Image) -> Keypoints:
        """Keypoints of an image (H, W, 3), as many as there are."""
        ...

    def match(self, query: Keypoints, keyframe: Keypoints) -> NDArray[np.intp]:
        """Pairs of indices (M, 2), the query's first."""
        ...


@dataclass(frozen=True, slots=True)
class SiftRatio:
    """SIFT and the ratio test (Lowe, IJCV 2004), from OpenCV.

    The threshold on contrast is a quarter of OpenCV's, else a night has hardly any keypoints.
    """

    max_keypoints: int = 4000
    min_contrast: float = 0.01
    ratio: float = 0.8

    def detect(self, image_rgb: Image) -> Keypoints:
        sift = cv2.SIFT.create(self.max_keypoints, contrastThreshold=self.min_contrast)
        grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
        found, descriptors = sift.detectAndCompute(grey, None)
        height, width = grey.shape
        return Keypoints(
            np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2),
            np.zeros((0, 128), np.float32) if descriptors is None else descriptors,
            (width, height),
        )

    def match(self, query: Keypoints, keyframe: Keypoints) -> NDArray[np.intp]:
        if len(keyframe.pixels) < 2 or not len(query.pixels):
            return np.zeros((0, 2), np.intp)
        pairs = cv2.BFMatcher().knnMatch(query.descriptors, keyframe.descriptors, k=2)
        kept = [best for best, second in pairs if best.distance < self.ratio * second.distance]
        return np.array([(m.queryIdx, m.trainIdx) for m in kept], np.intp).reshape(-1, 2)
