"""DISK without its detector: a descriptor for every pixel, to compare with our features."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.features.sampling import FeatureLevel
from research.baselines.disk import load_disk, to_tensor, weights_folder


class DenseDisk:
    """One level of stride 1, confidence 1 everywhere. Raises WeightsError where DISK is absent."""

    def __init__(self) -> None:
        self.disk = load_disk(weights_folder())

    @torch.inference_mode()
    def extract(self, image_rgb: NDArray[np.uint8]) -> FeaturePyramid:
        """The pyramid of an image (H, W, 3)."""
        height, width = image_rgb.shape[:2]
        image = F.pad(to_tensor(image_rgb), (0, -width % 16, 0, -height % 16))
        _, descriptors = self.disk.heatmap_and_dense_descriptors(image)
        rows = F.normalize(descriptors[0, :, :height, :width].flatten(1).T, dim=-1)
        size = torch.tensor([width, height], dtype=torch.float32)
        level = FeatureLevel(F.pad(rows, (0, 1), value=1.0), height, width, 1, size)
        return FeaturePyramid((level,), (1.0, 1.0))
