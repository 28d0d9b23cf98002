"""Image sequences with known poses: meta.json beside a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.common import foreign_files, image_files
from pixloc_ros.common.image_files import Image
from pixloc_ros.errors import CameraError, DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix

DEFAULT_RATE_HZ = 10.0
# Stamps near zero mean "unset" in ROS, so relative times are moved to a fixed date.
RELATIVE_BELOW_S = 1e6
RELATIVE_START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class PosedImage:
    """One image file with its camera and the camera's pose."""

    name: str  # as keyframes of the map are named
    path: Path
    camera: Camera
    T_map_cam: Matrix  # (4, 4)


@dataclass(frozen=True, slots=True)
class PosedImages:
    """A drive of N frames sorted by time."""

    files: tuple[Path, ...]
    stamps_ns: np.ndarray  # (N,) int64, strictly rising
    cameras: tuple[Camera, ...]
    T_map_base: Matrix  # (N, 4, 4)
    T_base_cam: Matrix  # (4, 4)


def read_posed_images(meta_file: Path, images_dir: Path, axes: str = "keep") -> PosedImages:
    """Read `meta.json`: per image file, width, height, K (fx fy cx cy), T_world_cam (3x4), t.

    With a lens, an image also has distortion_model and D as in CameraInfo.

    The world becomes the map frame. `axes` "optical_to_ros" turns a world with optical axes (x
    right, y down, z forward) into REP-103 axes; `world_axes` "optical" or "ros" in the file wins.
    Without `T_base_cam` (16 numbers) the camera sits at base_link and looks forward.
    Raises DataError for a missing file, image or pose, and for poses that are not rigid.
    """
    content = _load(meta_file)
    entries = content.get("images")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{meta_file} has no list 'images'; see docs/guide/bags.md for the format")
    T_base_cam = _base_from_cam(content, meta_file)
    frames = [_frame(entry, index, meta_file) for index, entry in enumerate(entries)]
    frames.sort(key=lambda frame: frame[1])
    names, stamps, cameras, T_world_cam = zip(*frames, strict=True)
    T_map_base = _map_from_world(content, axes) @ np.stack(T_world_cam) @ se3.inverse(T_base_cam)
    files = tuple(_existing(foreign_files.confined(images_dir, name, DataError)) for name in names)
    return PosedImages(
        files, _absolute(np.array(stamps), meta_file), cameras, T_map_base, T_base_cam
    )


def keyframes(drive: PosedImages, images_dir: Path) -> list[PosedImage]:
    """The cameras of a drive, named by their files' paths in images_dir."""
    T_map_cam = drive.T_map_base @ drive.T_base_cam
    return [
        PosedImage(path.relative_to(images_dir).as_posix(), path, camera, T)
        for path, camera, T in zip(drive.files, drive.cameras, T_map_cam, strict=True)
    ]


def map_from_world(meta_file: Path, axes: str = "keep") -> Matrix:
    """T_map_world (4, 4) that read_posed_images applies, for what else is in that world."""
    return _map_from_world(_load(meta_file), axes)


def read_image(path: Path, camera: Camera) -> Image:
    """RGB (H, W, 3) as the camera took it; raises MapError for another size than the camera's."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MapError(f"{path} cannot be read ({error.strerror})") from None
    return decode_image(content, path, (camera.width, camera.height))


def decode_image(content: bytes, path: Path, size_px: tuple[int, int]) -> Image:
    """As read_image, of the content of a file."""
    if image_files.is_cut_off(content):
        raise MapError(f"{path} is cut off: its image has no end; copy it again")
    return _checked(image_files.decode(content), path, size_px)


def _checked(image: Image | None, path: Path, size_px: tuple[int, int]) -> Image:
    if image is None:
        raise MapError(f"{path} cannot be read as an image; is the file whole?")
    height, width = image.shape[:2]
    if (width, height) != size_px:
        raise MapError(
            f"{path} is {width}x{height}, its camera in the model {size_px[0]}x{size_px[1]}; "
            f"give the images that the model was made from"
        )
    return image


def _load(meta_file: Path) -> dict[str, Any]:
    content = foreign_files.read_json(meta_file, DataError)
    if not isinstance(content, dict):
        raise DataError(f"{meta_file} is not a JSON object with 'images'")
    return content


def _frame(entry: Any, index: int, meta_file: Path) -> tuple[str, int, Camera, Matrix]:
    where = f"image {index} of {meta_file}"
    try:
        name, (fx, fy, cx, cy) = str(entry["file"]), map(float, entry["K"])
        size = round(float(entry["width"])), round(float(entry["height"]))
        lens, D = str(entry.get("distortion_model", "")), [*map(float, entry.get("D", ()))]
        T_world_cam = rigid(entry["T_world_cam"], where)
        stamp_s = float(entry.get("t", index / DEFAULT_RATE_HZ))
        camera = Camera.from_ros(lens, *size, [fx, 0, cx, 0, fy, cy, 0, 0, 1], D)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: missing or malformed {error}") from None
    except CameraError as error:
        raise DataError(f"{where}: {error}") from None
    if not np.isfinite(stamp_s):
        raise DataError(f"{where}: time {stamp_s} is not finite")
    return name, round(stamp_s * 1e9), camera, T_world_cam


def rigid(numbers: Any, where: str) -> Matrix:
    """The pose (4, 4) of 12 or 16 numbers; raises DataError, naming where, for anything else."""
    values = np.asarray(numbers, dtype=np.float64)
    if values.size not in (12, 16):
        raise DataError(f"{where}: a pose has 12 or 16 numbers, got {values.size}")
    T = np.vstack([values.reshape(-1, 4)[:3], [0.0, 0.0, 0.0, 1.0]])
    if not se3.is_rigid(T):
        raise DataError(f"{where}: the pose is not finite, or its rotation is not orthonormal")
    # Files carry few digits; the nearest rotation keeps long products rigid.
    return se3.make(Rotation.from_matrix(T[:3, :3]).as_matrix(), T[:3, 3])


def _base_from_cam(content: dict[str, Any], meta_file: Path) -> Matrix:
    if "T_base_cam" not in content:
        return se3.base_from_optical()
    return rigid(content["T_base_cam"], f"T_base_cam of {meta_file}")


def _map_from_world(content: dict[str, Any], axes: str) -> Matrix:
    optical = content.get("world_axes", {"optical_to_ros": "optical"}.get(axes, "ros"))
    return se3.base_from_optical() if optical == "optical" else np.eye(4)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"image {path} does not exist; check --images")
    return path


def _absolute(stamps_ns: np.ndarray, meta_file: Path) -> np.ndarray:
    if (np.diff(stamps_ns) <= 0).any():
        raise DataError(f"{meta_file} has two images with the same time 't'")
    relative = stamps_ns[-1] < RELATIVE_BELOW_S * 1e9
    return stamps_ns + RELATIVE_START_NS if relative else stamps_ns
