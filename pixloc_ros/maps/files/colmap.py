"""COLMAP models, binary and text, read with numpy: no pycolmap needed.

Files of COLMAP 1 to 4; with rigs and frames an image's pose is sensor_from_rig @ rig_from_world.
Pixels leave here with the centre of the top-left pixel at (0, 0); COLMAP stores (0.5, 0.5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import confined, refusing
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files import colmap_binary, colmap_text
from pixloc_ros.maps.files.colmap_records import (
    FrameRecord,
    ImageRecord,
    PointRecords,
    RigRecords,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ColmapImage:
    """A registered image with its keypoints."""

    image_id: int
    name: str
    camera_id: int
    T_cam_world: NDArray[np.float64]  # (4, 4)
    pixels: NDArray[np.float64]  # (N, 2), top-left pixel centre at (0, 0)
    point_ids: NDArray[np.int64]  # (N,), -1 where the keypoint has no 3D point
    depth_m: NDArray[np.float16] | None = None  # occlusion.GRID, of dense models only


@dataclass(frozen=True, slots=True)
class ColmapModel:
    """Cameras, registered images sorted by name, and points sorted by id."""

    cameras: Mapping[int, Camera]
    images: tuple[ColmapImage, ...]
    unregistered: tuple[str, ...]  # names of images without a pose
    point_ids: NDArray[np.int64]  # (P,) ascending
    points_world: NDArray[np.float64]  # (P, 3)
    errors_px: NDArray[np.float64]  # (P,) mean reprojection error, -1 where unknown


def read_model(folder: str | Path, with_points: bool = True) -> ColmapModel:
    """Read the model in `folder`; binary files win over text files, as in COLMAP.

    with_points: where False, there may be none in the model, and none is read.
    Raises MapError when files are missing, truncated or hold no registered image or no point,
    CameraError when an image was taken by a camera model that is not supported.
    """
    folder = Path(folder)
    suffix = _suffix(folder)
    reader = colmap_binary if suffix == ".bin" else colmap_text
    cameras = _read(folder / f"cameras{suffix}", reader.read_cameras)
    records = _read(folder / f"images{suffix}", reader.read_images)
    points = PointRecords.sorted_by_id([], [], [])
    if with_points:
        points = _read(folder / f"points3D{suffix}", reader.read_points)
    poses = _poses_by_frame(folder, suffix) or _poses_by_image(records)
    images = tuple(_image(r, poses[r.image_id]) for r in records if r.image_id in poses)
    _check_content(folder, images, set(cameras))
    if with_points:
        _check_points(folder, images, points)
    used = {image.camera_id for image in images}
    return ColmapModel(
        cameras={i: Camera.from_colmap(*cameras[i]) for i in sorted(used)},
        images=tuple(sorted(images, key=lambda image: image.name)),
        unregistered=tuple(sorted(r.name for r in records if r.image_id not in poses)),
        point_ids=points.ids,
        points_world=points.positions,
        errors_px=points.errors_px,
    )


def _suffix(folder: Path) -> str:
    if not folder.is_dir():
        raise MapError(f"{folder}: no such folder; give the folder of a COLMAP model")
    for suffix in (".bin", ".txt"):
        needed = [folder / f"{name}{suffix}" for name in ("cameras", "images", "points3D")]
        missing = [path.name for path in needed if not path.is_file()]
        if not missing:
            return suffix
        if len(missing) < len(needed):
            break
    else:
        missing = ["cameras, images and points3D (.bin or .txt)"]
    inside = ", ".join(str(p.relative_to(folder).parent) for p in folder.glob("*/*/cameras.*"))
    inside = inside or ", ".join(p.parent.name for p in folder.glob("*/cameras.*"))
    hint = f"the model is in its subfolder {inside}" if inside else "is this a COLMAP model?"
    raise MapError(f"{folder} lacks {', '.join(missing)}: {hint}")


def _read(path: Path, parse: Callable[[Path], T]) -> T:
    with refusing(MapError, path):
        try:
            return parse(path)
        except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
            raise MapError(
                f"{path} is truncated or damaged ({error}); copy or export the model again"
            ) from None


def _poses_by_frame(folder: Path, suffix: str) -> dict[int, NDArray[np.float64]]:
    """T_cam_world by image id from rigs and frames; empty in models older than COLMAP 3.12."""
    reader = colmap_binary if suffix == ".bin" else colmap_text
    rigs_path, frames_path = folder / f"rigs{suffix}", folder / f"frames{suffix}"
    if not (rigs_path.is_file() and frames_path.is_file()):
        return {}
    rigs: RigRecords = _read(rigs_path, reader.read_rigs)
    frames: list[FrameRecord] = _read(frames_path, reader.read_frames)
    poses = {}
    for frame in frames:
        for sensor, image_id in frame.images:
            T_sensor_rig = rigs.get(frame.rig_id, {}).get(sensor)
            if T_sensor_rig is not None and se3.is_rigid(frame.T_rig_world):
                poses[image_id] = T_sensor_rig @ frame.T_rig_world
    return poses


def _poses_by_image(records: list[ImageRecord]) -> dict[int, NDArray[np.float64]]:
    return {r.image_id: r.T_cam_world for r in records if se3.is_rigid(r.T_cam_world)}


def _image(record: ImageRecord, T_cam_world: NDArray[np.float64]) -> ColmapImage:
    return ColmapImage(
        image_id=record.image_id,
        name=record.name,
        camera_id=record.camera_id,
        T_cam_world=T_cam_world,
        pixels=record.keypoints - 0.5,
        point_ids=record.point_ids,
    )


def _check_content(folder: Path, images: tuple[ColmapImage, ...], camera_ids: set[int]) -> None:
    if not images:
        raise MapError(f"{folder}: the model has no registered image; reconstruct it first")
    for image in images:
        confined(folder, image.name, MapError)
    orphan = next((image for image in images if image.camera_id not in camera_ids), None)
    if orphan is not None:
        raise MapError(
            f"{folder}: image '{orphan.name}' names camera {orphan.camera_id}, which the model "
            f"lacks; export the model again"
        )


def _check_points(folder: Path, images: tuple[ColmapImage, ...], points: PointRecords) -> None:
    if not len(points.ids):
        raise MapError(f"{folder}: the model has no 3D point; run COLMAP's point_triangulator")
    if not np.isfinite(points.positions).all():
        raise MapError(f"{folder}: the model has points that are not finite; export it again")
    for image in images:
        if not np.isin(image.point_ids[image.point_ids >= 0], points.ids).all():
            raise MapError(
                f"{folder}: image '{image.name}' sees points that the model lacks; are all files "
                f"of one model?"
            )
