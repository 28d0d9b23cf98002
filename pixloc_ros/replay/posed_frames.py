"""Image sequences with one file per pose beside each image, as in the 7-Scenes data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixloc_ros.errors import DataError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.replay.posed_images import PosedImages, rigid
from pixloc_ros.replay.posed_trajectory import SUFFIXES, read_camera

POSE_SUFFIX = ".pose.txt"


def read_posed_frames(
    folder: Path, images_dir: Path, intrinsics: str
) -> tuple[PosedImages, tuple[str, ...]]:
    """Frames `NAME.pose.txt` in folder, 4x4 numbers T_map_cam, with images `NAME.color.png` (or
    without `.color`, or of another image format) at the same place in images_dir.

    Also returns the names of frames whose pose is not finite: trackers write such where they were
    lost. Stamps are numbers. Raises DataError for missing images and for files that are no poses.
    """
    files = sorted(folder.rglob(f"*{POSE_SUFFIX}"))
    if not files:
        raise DataError(f"{folder} holds no NAME{POSE_SUFFIX}; give a file, or another folder")
    poses = {file: _read_pose(file) for file in files}
    used = [file for file in files if np.isfinite(poses[file]).all()]
    lost = tuple(file.name for file in files if file not in used)
    if not used:
        raise DataError(f"none of the {len(files)} poses in {folder} is finite")
    images = [_image_of(file.relative_to(folder), images_dir) for file in used]
    camera = read_camera(intrinsics, images[0])
    T_map_cam = np.stack([rigid(poses[file], str(file)) for file in used])
    stamps_ns = np.arange(len(images), dtype=np.int64)
    return PosedImages(
        tuple(images), stamps_ns, (camera,) * len(images), T_map_cam, np.eye(4)
    ), lost


def _read_pose(file: Path) -> Matrix:
    try:
        return np.loadtxt(file, comments=None, converters=_number, encoding="utf-8").reshape(4, 4)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not a pose of 4x4 numbers ({error})") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "-1.#IND" of some compilers
        return float("nan")


def _image_of(pose: Path, images_dir: Path) -> Path:
    stem = str(pose).removesuffix(POSE_SUFFIX)
    suffixes = sorted(SUFFIXES)
    for name in (f"{stem}.color", stem):
        for suffix in suffixes:
            if (images_dir / (name + suffix)).is_file():
                return images_dir / (name + suffix)
    raise DataError(f"{images_dir} lacks the image of {pose}: {stem}.color.png, or {stem}.png")
