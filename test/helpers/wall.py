"""A wall with a texture, photographed, as a COLMAP model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap_writer import ImageToWrite, write_model

WIDTH, HEIGHT, FOCAL = 256, 160, 200.0


CENTER = (127.3, 80.1)


CAMERA = Camera.create("PINHOLE", [WIDTH, HEIGHT], [FOCAL, FOCAL], CENTER)


N_KEYFRAMES, SPACING_M, WALL_M = 6, 0.5, 6.0


WALL_PX_PER_M = 60


def write_dataset(folder: Path, offset: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    wall = make_wall(rng)
    points = np.column_stack([rng.uniform(-5, 8, 900), rng.uniform(-3, 3, 900), np.full(900, 6.0)])
    images = []
    for index in range(N_KEYFRAMES):
        T_world_cam = se3.make(np.eye(3), [index * SPACING_M, 0.02 * index, 0.0])
        name = f"drive 1/{index:03d}.png"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph(wall, T_world_cam))
        pixels, seen = CAMERA.project(torch.from_numpy(points - T_world_cam[:3, 3]))
        T_world_cam[:3, 3] += offset
        visible = np.flatnonzero(seen.numpy())
        keypoints = pixels.numpy()[visible] + 0.5
        keypoints[0] += 10 * (index == 0)  # one mismatch
        images.append(ImageToWrite(name, se3.inverse(T_world_cam), keypoints, visible))
    colours = np.zeros((len(points), 3), np.uint8)
    write_model(folder / "colmap", [CAMERA], images, points + offset, colours)


def make_wall(rng: np.random.Generator) -> np.ndarray:
    """13 m x 6 m of blobs of several sizes."""
    size = (6 * WALL_PX_PER_M, 13 * WALL_PX_PER_M)
    layers = [
        cv2.resize(rng.uniform(0, 255, (size[0] // s, size[1] // s, 3)), size[::-1])
        for s in (4, 12, 30)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def photograph(wall: np.ndarray, T_world_cam: np.ndarray) -> np.ndarray:
    wall_from_cam = np.array(
        [[1, 0, T_world_cam[0, 3] + 5], [0, 1, T_world_cam[1, 3] + 3], [0, 0, 1]]
    )
    metres_from_pixel = np.diag([WALL_M, WALL_M, 1.0]) @ np.linalg.inv(CAMERA.K())
    H = np.diag([WALL_PX_PER_M, WALL_PX_PER_M, 1.0]) @ wall_from_cam @ metres_from_pixel
    return cv2.warpPerspective(
        wall, H, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
