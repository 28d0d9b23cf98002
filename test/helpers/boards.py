"""The boards of scene.py in the layouts that training reads, with exact points and visibility."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch

from helpers.scene import BOARDS, CAMERA, CENTER, FAR, FOCAL, HEIGHT, NEAR, WIDTH, photograph, pose
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera

POINTS = np.concatenate([board.points(0.25) for board in BOARDS])
COLMAP_CENTER = (CENTER[0] + 0.5, CENTER[1] + 0.5)
PINHOLE_LINE = f"PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {COLMAP_CENTER[0]} {COLMAP_CENTER[1]}"


@dataclass(frozen=True)
class Shot:
    """An image file with its pose; turned: lies on its side, by a quarter clockwise."""

    name: str
    T_world_cam: np.ndarray
    turned: bool = False


SHOTS = [Shot(f"{i:03d}.png", pose(i)) for i in range(6)]


def hidden(points_world: np.ndarray, T_world_cam: np.ndarray) -> np.ndarray:
    """(N,) whether the near board is between the camera and the points."""
    place = T_world_cam[:3, 3]
    ray = points_world - place
    share = (NEAR.z_m - place[2]) / ray[:, 2]
    x, y = (place + share[:, None] * ray)[:, :2].T
    inside = (x > NEAR.x_m[0]) & (x < NEAR.x_m[1]) & (y > NEAR.y_m[0]) & (y < NEAR.y_m[1])
    return inside & (points_world[:, 2] > NEAR.z_m + 1e-6)


def observations(T_world_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (M,) of POINTS in view and not hidden, and their pixels (M, 2)."""
    in_cam = se3.transform(se3.inverse(T_world_cam), POINTS)
    pixels, valid = CAMERA.project(torch.from_numpy(in_cam))
    seen = np.flatnonzero(valid.numpy() & ~hidden(POINTS, T_world_cam))
    return seen, pixels.numpy()[seen]


@cache
def _photographed(pose_bytes: bytes) -> np.ndarray:
    return photograph(np.frombuffer(pose_bytes).reshape(4, 4))


def write_images(folder: Path, shots: list[Shot]) -> None:
    for shot in shots:
        image = _photographed(shot.T_world_cam.tobytes())
        if shot.turned:
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        (folder / shot.name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / shot.name), image)


def write_model(folder: Path, shots: list[Shot]) -> None:
    """A COLMAP text model of POINTS; camera 2 is camera 1 on its side."""
    folder.mkdir(parents=True)
    turned_center = (HEIGHT - COLMAP_CENTER[1], COLMAP_CENTER[0])
    turned_line = f"PINHOLE {HEIGHT} {WIDTH} {FOCAL} {FOCAL} {turned_center[0]} {turned_center[1]}"
    (folder / "cameras.txt").write_text(f"1 {PINHOLE_LINE}\n2 {turned_line}\n")
    lines = []
    for number, shot in enumerate(shots, start=1):
        seen, pixels = observations(shot.T_world_cam)
        T_cam_world = se3.inverse(shot.T_world_cam)
        if shot.turned:  # what was up is now right
            pixels = np.column_stack([HEIGHT - 1 - pixels[:, 1], pixels[:, 0]])
            T_cam_world = se3.make([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.zeros(3)) @ T_cam_world
        pose = [*se3.qvec_wxyz(T_cam_world), *T_cam_world[:3, 3]]
        lines.append(f"{number} {' '.join(map(str, pose))} {1 + shot.turned} {shot.name}")
        keypoints = zip(pixels + 0.5, seen, strict=True)
        lines.append(" ".join(f"{x} {y} {point}" for (x, y), point in keypoints))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = (f"{i} {x} {y} {z} 0 0 0 0.5" for i, (x, y, z) in enumerate(POINTS))
    (folder / "points3D.txt").write_text("\n".join(rows) + "\n")


def depth_map(T_world_cam: np.ndarray) -> np.ndarray:
    """(H, W) along the optical axis, in metres; 0 beside the boards."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    ones = np.ones((HEIGHT, WIDTH))
    rays = np.stack([(u - CENTER[0]) / FOCAL, (v - CENTER[1]) / FOCAL, ones], -1)
    rays_world = rays @ T_world_cam[:3, :3].T
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    for board in BOARDS:  # the nearer one last
        z = (board.z_m - T_world_cam[2, 3]) / rays_world[..., 2]
        x, y = (T_world_cam[:3, 3] + z[..., None] * rays_world)[..., :2].transpose(2, 0, 1)
        inside = (x > board.x_m[0]) & (x < board.x_m[1]) & (y > board.y_m[0]) & (y < board.y_m[1])
        depth[inside] = z[inside]
    return depth


def write_megadepth(root: Path, scene: str, shots: list[Shot]) -> None:
    """A scene in MegaDepth's layout, with depth maps."""
    write_images(root / "Undistorted_SfM" / scene / "images", shots)
    write_model(root / "Undistorted_SfM" / scene / "sparse", shots)
    write_depth_maps(root / "MegaDepth_v1" / scene / "dense0" / "depths", shots)


def write_depth_maps(folder: Path, shots: list[Shot]) -> None:
    """As MegaDepth has them, turned like the images."""
    folder.mkdir(parents=True)
    for shot in shots:
        depth = depth_map(shot.T_world_cam)
        if shot.turned:
            depth = cv2.rotate(depth, cv2.ROTATE_90_CLOCKWISE)
        with h5py.File(folder / Path(shot.name).with_suffix(".h5"), "w") as file:
            file["depth"] = depth


def write_cloud(path: Path, spacing_m: float = 0.1) -> None:
    points = np.concatenate([board.points(spacing_m) for board in (FAR, NEAR)])
    header = "ply\nformat binary_little_endian 1.0\n"
    header += f"element vertex {len(points)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(header.encode() + points.astype("<f8").tobytes())


def distorted(image_rgb: np.ndarray, camera: Camera) -> np.ndarray:
    """What a camera of OPENCV's model sees where the boards' pinhole saw an image."""
    pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), -1)
    flat = pixels.reshape(-1, 1, 2).astype(np.float64)
    rays = cv2.undistortPoints(flat, camera.K(), camera.distortion.numpy())[:, 0]
    u, v = (rays * FOCAL + CENTER).astype(np.float32).T.reshape(2, camera.height, camera.width)
    return cv2.remap(image_rgb, u, v, cv2.INTER_LINEAR)
