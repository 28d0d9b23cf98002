"""Draw the learned confidence over an image."""

from __future__ import annotations

import cv2
import numpy as np

from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.visualization import drawing
from pixloc_ros.visualization.drawing import Image


def draw_confidence(image_rgb: Image, pyramid: FeaturePyramid) -> Image:
    """Draw the learned confidence of every level over the image (H, W, 3), the finest first."""
    image = drawing.fit(image_rgb, drawing.MIN_WIDTH // 2, drawing.MIN_WIDTH)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    panels = []
    for level, confidence in zip(pyramid.levels, pyramid.confidences, strict=True):
        heat = drawing.colors(confidence.float().cpu().numpy(), cv2.COLORMAP_INFERNO)
        panel = cv2.addWeighted(grey, 0.4, _spread(heat, level, grey), 0.6, 0.0)
        drawing.label(panel, f"stride {level.stride}: mean {float(confidence.mean()):.2f}")
        panels.append(panel)
    return drawing.join(panels[::-1])


def _spread(heat: Image, level: FeatureLevel, panel: Image) -> Image:
    """Resize a level's map to a panel; its padding beyond the image is cut off."""
    width, height = panel.shape[1::-1]
    fx, fy = level.image_size.cpu().numpy() / level.stride / (width, height)
    panel_to_map = np.array([[fx, 0.0, 0.5 * fx - 0.5], [0.0, fy, 0.5 * fy - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        heat, panel_to_map, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
