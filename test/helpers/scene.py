"""A small exact scene: textured boards facing a camera that slides along x, painted far to near."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera

WIDTH, HEIGHT, FOCAL = 320, 208, 260.0
CENTER = (158.7, 104.2)
CAMERA = Camera.create("PINHOLE", [WIDTH, HEIGHT], [FOCAL, FOCAL], CENTER)
TEXELS_PER_M = 60


@dataclass(frozen=True)
class Board:
    """A rectangle at depth z_m in the world's optical axes (x right, y down, z forward)."""

    x_m: tuple[float, float]
    y_m: tuple[float, float]
    z_m: float
    seed: int

    @property
    def size_m(self) -> np.ndarray:
        return np.array([np.ptp(self.x_m), np.ptp(self.y_m)])

    def points(self, spacing_m: float) -> np.ndarray:
        x, y = (np.arange(*limits, spacing_m) for limits in (self.x_m, self.y_m))
        grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        return np.column_stack([grid, np.full(len(grid), self.z_m)])


@cache
def texture(board: Board) -> np.ndarray:
    """Blobs of several sizes; not to be written to."""
    rng = np.random.default_rng(board.seed)
    width, height = (board.size_m * TEXELS_PER_M).astype(int)
    layers = [
        cv2.resize(rng.uniform(0, 255, (height // s, width // s, 3)), (width, height))
        for s in (5, 12, 30)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


FAR = Board((-9.0, 12.0), (-5.0, 5.0), 8.0, seed=1)
NEAR = Board((0.2, 1.4), (-1.2, 0.9), 3.5, seed=2)
BOARDS = (FAR, NEAR)


def pose(index: float) -> np.ndarray:
    """T_world_cam of the camera after index steps of 0.3 m; it turns and comes a little nearer."""
    turn = Rotation.from_rotvec(np.deg2rad([0.3, -1.0, 0.5]) * index)
    return se3.make(turn.as_matrix(), [0.3 * index, 0.01 * index, 0.03 * index])


def photograph(T_world_cam: np.ndarray, boards: tuple[Board, ...] = BOARDS) -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    T_cam_world = se3.inverse(T_world_cam)
    for board in boards:
        corner = [board.x_m[0], board.y_m[0], board.z_m]
        step = 1 / TEXELS_PER_M
        world_from_texel = np.array(
            [[step, 0, corner[0]], [0, step, corner[1]], [0, 0, corner[2]], [0, 0, 1]]
        )
        H = CAMERA.K() @ T_cam_world[:3] @ world_from_texel
        painted = texture(board)
        where = np.full(painted.shape[:2], 255, np.uint8)
        mask = cv2.warpPerspective(where, H, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST) > 0
        image[mask] = cv2.warpPerspective(painted, H, (WIDTH, HEIGHT))[mask]
    return image


def write_scene(folder: Path, count: int = 8, **extra: object) -> Path:
    """images/ and meta.json of a slide past the boards. Returns meta.json."""
    (folder / "images" / "drive 1").mkdir(parents=True)
    entries = []
    for i in range(count):
        name = f"drive 1/{i:03d}.png"
        cv2.imwrite(str(folder / "images" / name), photograph(pose(i)))
        entries.append(
            {
                "file": name,
                "width": WIDTH,
                "height": HEIGHT,
                "K": [FOCAL, FOCAL, *CENTER],
                "T_world_cam": pose(i)[:3].ravel().tolist(),
            }
        )
    meta = folder / "meta.json"
    meta.write_text(json.dumps({"world_axes": "ros", "images": entries, **extra}))
    return meta
