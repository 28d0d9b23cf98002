"""VisualSfM's N-View Match files, as Aachen v1.0 and RobotCar Seasons are released.

They name the camera's centre instead of a translation, and their intrinsics are not to be used:
both datasets have them in another file. An observation's pixel is passed over, as writers disagree
about its origin: the point is projected instead.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel

POINT_WORDS = 7  # x y z r g b and the number of observations, of which each has four words


def read_nvm(
    path: Path, cameras: Mapping[str, Camera], new_name: Callable[[str], str] = str
) -> ColmapModel:
    """Read a model; cameras by the name of the image file.

    new_name: turns a name of the NVM file into that of the image file. Raises MapError for a
    damaged file and for images without a camera.
    """
    remedy = "is it whole? Download it again"
    with refusing(MapError, path, remedy), path.open(encoding="utf-8") as file:
        return _read(path, _words(file), cameras, new_name)


def _words(file: Iterable[str]) -> Iterator[list[str]]:
    """Words of the lines that are not empty; raises ValueError for whoever wants more."""
    yield from (line.split() for line in file if line.strip())
    raise ValueError("it ends too early")


def _read(
    path: Path,
    lines: Iterator[list[str]],
    cameras: Mapping[str, Camera],
    new_name: Callable[[str], str],
) -> ColmapModel:
    first = next(lines)
    if not first[0].startswith("NVM_V3"):
        raise ValueError("the first word is not NVM_V3")
    names, poses = [], []
    for _ in range(int(next(lines)[0])):
        words = next(lines)
        names.append(new_name(words[0]))
        poses.append(_pose([float(word) for word in words[2:9]]))
    if missing := [name for name in names if name not in cameras]:
        raise MapError(
            f"{path} has {len(missing)} images without intrinsics, the first is '{missing[0]}'"
        )
    points, seen = _read_points(lines, len(names))
    order = sorted(range(len(names)), key=lambda i: names[i])
    return ColmapModel(
        cameras={i: cameras[name] for i, name in enumerate(names)},
        images=tuple(_image(i, names[i], poses[i], cameras, seen[i], points) for i in order),
        unregistered=(),
        point_ids=np.arange(len(points)),
        points_world=points,
        errors_px=np.full(len(points), -1.0),
    )


def _pose(numbers: list[float]) -> NDArray[np.float64]:
    """T_cam_world (4, 4) of qw qx qy qz and the camera's centre."""
    T_cam_world = se3.from_qvec_wxyz(numbers[:4], np.zeros(3))
    T_cam_world[:3, 3] = -T_cam_world[:3, :3] @ np.array(numbers[4:])
    return T_cam_world


def _read_points(
    lines: Iterator[list[str]], image_count: int
) -> tuple[NDArray[np.float64], list[array]]:
    """Points (P, 3), and for each image the points that it sees."""
    seen = [array("q") for _ in range(image_count)]
    points = array("d")  # grows with what is read: the count may be of any size
    for point in range(int(next(lines)[0])):
        words = next(lines)
        points.extend(float(word) for word in words[:3])
        images = words[POINT_WORDS::4]
        if len(words) != POINT_WORDS + 4 * int(words[POINT_WORDS - 1]):
            raise ValueError(f"point {point} has another number of observations than it says")
        for image in map(int, images):
            if not 0 <= image < image_count:
                raise ValueError(f"point {point} is seen by image {image} of {image_count}")
            seen[image].append(point)
    return np.array(points).reshape(-1, 3), seen


def _image(
    index: int,
    name: str,
    T_cam_world: NDArray[np.float64],
    cameras: Mapping[str, Camera],
    seen: array,
    points: NDArray[np.float64],
) -> ColmapImage:
    ids = np.unique(np.array(seen, np.int64))
    points_cam = se3.transform(T_cam_world, points[ids])
    pixels, _ = cameras[name].project(torch.from_numpy(points_cam))
    return ColmapImage(index + 1, name, index, T_cam_world, pixels.numpy(), ids)
