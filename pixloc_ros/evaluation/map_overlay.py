"""Draw the points of a map over an image at a frame's pose, to show whether the pose is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig
from pixloc_ros.evaluation.frames import FrameResult
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.serving_keyframes import choose_keyframes
from pixloc_ros.visualization import drawing
from pixloc_ros.visualization.overlay import STATUS_COLORS

MAX_POINTS = 600
RADIUS_PX = 1.5


@dataclass(frozen=True, slots=True)
class MapOverlay:
    """Draws for one camera of one vehicle."""

    map: Map
    camera: Camera
    T_base_cam: Matrix  # (4, 4)

    def draw(self, image_rgb: NDArray[np.uint8], frame: FrameResult) -> NDArray[np.uint8]:
        """Draw points on the image (H, W, 3) at the pose found, coloured by its status.

        The image stays unchanged if the frame has neither a pose nor a candidate.
        """
        found = frame.pose or frame.candidate
        if found is None:
            return image_rgb
        canvas = image_rgb.copy()
        for pixel in self._pixels(found.matrix() @ self.T_base_cam):
            drawing.circle(canvas, pixel, RADIUS_PX, STATUS_COLORS[frame.status])
        return canvas

    def _pixels(self, T_map_cam: Matrix) -> NDArray[np.float64]:
        """Return pixels (N, 2) of the visible points that nearby keyframes observe."""
        config = ViewConfig()
        near, _ = self.map.keyframes_within(T_map_cam[:3, 3], config.max_distance_m)
        chosen = choose_keyframes(self.map, T_map_cam, near, config)
        if not len(chosen):
            return np.zeros((0, 2))
        points_map = np.concatenate([self.map.points_seen_by(int(k)) for k in chosen])
        points_cam = se3.transform(se3.inverse(T_map_cam), points_map)
        pixels, visible = self.camera.project(torch.from_numpy(points_cam))
        shown = pixels.numpy()[visible.numpy()]
        return shown[:: -(-len(shown) // MAX_POINTS) or 1]
