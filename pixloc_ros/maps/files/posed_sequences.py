"""Image sequences whose poses are in files of others.

A trajectory (TUM), poses by image name, or, as in the 7-Scenes data set, one file per image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import confined
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import associate, has_named_poses, read_poses, read_tum
from pixloc_ros.maps.files.posed_images import PosedImages, rigid

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
TOLERANCE_S = 0.02  # between an image's time and that of its pose
NANOSECONDS_FROM = 1e12  # larger numbers in file names are nanoseconds, smaller ones seconds
POSE_SUFFIX = ".pose.txt"  # of 7-Scenes
EXPECTED = "FX,FY,CX,CY or FX,FY,CX,CY,K1,K2,P1,P2"


def read_posed_trajectory(
    file: Path, images_dir: Path, intrinsics: str, T_base_cam: Matrix | None = None
) -> PosedImages:
    """Images of one camera with poses from `file`.

    TUM lines `t tx ty tz qx qy qz qw` are T_map_base where T_base_cam (4, 4) is given, otherwise
    T_map_cam; an image belongs to the pose at the time that its file name tells. Named poses
    `name qw qx qy qz tx ty tz` are T_cam_map. intrinsics: "FX,FY,CX,CY" and, with distortion,
    ",K1,K2,P1,P2" as in OpenCV. Images without poses are left out.
    Raises DataError for poses without images, and for images or intrinsics that cannot be used.
    """
    mount = np.eye(4) if T_base_cam is None else T_base_cam
    if has_named_poses(file):
        named = read_poses(file)
        files = [_existing(confined(images_dir, name, DataError), len(named)) for name in named]
        T_map_base = se3.inverse(np.stack(list(named.values()))) @ se3.inverse(mount)
        stamps_ns = np.arange(len(files), dtype=np.int64)
    else:
        files, stamps_ns, T_map_base = _by_time(file, images_dir)
    camera = read_camera(intrinsics, files[0])
    return PosedImages(tuple(files), stamps_ns, (camera,) * len(files), T_map_base, mount)


def _existing(path: Path, count: int) -> Path:
    if not path.is_file():
        raise DataError(f"image {path}, one of {count} with a pose, does not exist; check --images")
    return path


def _by_time(file: Path, images_dir: Path) -> tuple[list[Path], np.ndarray, Matrix]:
    trajectory = read_tum(file)
    paths = sorted(path for path in images_dir.rglob("*") if path.suffix.lower() in SUFFIXES)
    timed = sorted((stamp_ns, path) for path in paths if (stamp_ns := _stamp_ns(path)) is not None)
    stamps_ns = np.array([stamp for stamp, _ in timed], np.int64)
    images, poses = associate(stamps_ns, trajectory.stamps_ns, TOLERANCE_S)
    if not len(images):
        raise DataError(
            f"no image in {images_dir} is named by a time within {TOLERANCE_S:g} s of a pose in "
            f"{file} ({len(paths)} images, {len(trajectory)} poses); name poses by image instead"
        )
    files = [timed[i][1] for i in images]
    return files, stamps_ns[images], trajectory.T_map_base[poses]


def _stamp_ns(path: Path) -> int | None:
    try:
        number = float(path.stem)
    except ValueError:
        return None
    return int(path.stem) if number > NANOSECONDS_FROM else round(number * 1e9)


def read_camera(intrinsics: str, image: Path) -> Camera:
    """The camera of an image, of its size; raises DataError for intrinsics not as EXPECTED."""
    try:
        numbers = [float(part) for part in intrinsics.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 8):
        raise DataError(f"intrinsics '{intrinsics}': expected {EXPECTED}, in pixels")
    pixels = image_files.read(image)
    if pixels is None:
        raise DataError(f"{image} cannot be read as an image; is the file whole?")
    size = [pixels.shape[1], pixels.shape[0]]
    model = "OPENCV" if numbers[4:] else "PINHOLE"
    return Camera.create(model, size, numbers[:2], numbers[2:4], numbers[4:])


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
    images = [_image_of_pose(file.relative_to(folder), images_dir) for file in used]
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


def _image_of_pose(pose: Path, images_dir: Path) -> Path:
    stem = str(pose).removesuffix(POSE_SUFFIX)
    suffixes = sorted(SUFFIXES)
    for name in (f"{stem}.color", stem):
        for suffix in suffixes:
            if (images_dir / (name + suffix)).is_file():
                return images_dir / (name + suffix)
    raise DataError(f"{images_dir} lacks the image of {pose}: {stem}.color.png, or {stem}.png")
