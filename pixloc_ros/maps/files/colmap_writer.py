"""Write a COLMAP model (binary) of geometry that is already known."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap_records import CAMERA_MODELS

Array = NDArray[np.floating]
MODEL_IDS = {name: number for number, (name, _) in CAMERA_MODELS.items()}
PIXEL_CENTRE = 0.5  # of the top left pixel, in COLMAP; ours is at (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class ImageToWrite:
    """A posed image. T_cam_world (4, 4); pixels (M, 2) in COLMAP's convention; points (M,)."""

    name: str
    T_cam_world: Array
    pixels: Array
    points: NDArray[np.int64]
    camera: int = 0  # which one of those that are written


def write_model(
    folder: Path,
    cameras: Sequence[Camera],
    images: Sequence[ImageToWrite],
    points: Array,
    colours: NDArray[np.uint8],
) -> None:
    """Write cameras.bin, images.bin and points3D.bin into folder.

    points: (N, 3) world coordinates, colours (N, 3). All are numbered from 1 in the order given.
    Format: COLMAP documentation, "Binary File Format".
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack("<Q", len(cameras))
    bodies = [_camera_bytes(number, camera) for number, camera in enumerate(cameras, start=1)]
    (folder / "cameras.bin").write_bytes(header + b"".join(bodies))
    header = struct.pack("<Q", len(images))
    bodies = [_image_bytes(number, image) for number, image in enumerate(images, start=1)]
    (folder / "images.bin").write_bytes(header + b"".join(bodies))
    (folder / "points3D.bin").write_bytes(_points_bytes(cameras, images, points, colours))


def _camera_bytes(number: int, camera: Camera) -> bytes:
    model, width, height, params = camera.to_colmap()
    head = struct.pack("<IiQQ", number, MODEL_IDS[model], width, height)
    return head + struct.pack(f"<{len(params)}d", *params)


def _image_bytes(number: int, image: ImageToWrite) -> bytes:
    x, y, z, w = Rotation.from_matrix(image.T_cam_world[:3, :3]).as_quat()
    pose = struct.pack("<I7dI", number, w, x, y, z, *image.T_cam_world[:3, 3], image.camera + 1)
    observed = np.zeros(len(image.points), [("xy", "<f8", 2), ("point", "<u8")])
    observed["xy"], observed["point"] = image.pixels, image.points + 1
    name = image.name.encode() + b"\0"
    return pose + name + struct.pack("<Q", len(observed)) + observed.tobytes()


def _points_bytes(
    cameras: Sequence[Camera],
    images: Sequence[ImageToWrite],
    points: Array,
    colours: NDArray[np.uint8],
) -> bytes:
    tracks: list[list[int]] = [[] for _ in points]
    errors = np.zeros(len(points))
    for number, image in enumerate(images, start=1):
        np.add.at(errors, image.points, _reprojection_errors(cameras[image.camera], image, points))
        for slot, point in enumerate(image.points.tolist()):
            tracks[point] += (number, slot)
    chunks = [struct.pack("<Q", len(points))]
    for number, track in enumerate(tracks, start=1):
        length = len(track) // 2
        xyz, rgb = points[number - 1], colours[number - 1]
        error = errors[number - 1] / max(length, 1)
        chunks.append(struct.pack("<Q3d3BdQ", number, *xyz, *rgb.tolist(), error, length))
        chunks.append(struct.pack(f"<{len(track)}I", *track))
    return b"".join(chunks)


def _reprojection_errors(camera: Camera, image: ImageToWrite, points: Array) -> Array:
    rotation, translation = image.T_cam_world[:3, :3], image.T_cam_world[:3, 3]
    in_cam = points[image.points] @ rotation.T + translation
    pixels, _ = camera.project(torch.from_numpy(in_cam))
    return np.linalg.norm(pixels.numpy() + PIXEL_CENTRE - image.pixels, axis=1)
