"""What both COLMAP readers return, as the files have it: COLMAP's pixels, COLMAP's ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3

Sensor = tuple[int, int]  # type (0: camera) and id
RigRecords = dict[int, dict[Sensor, NDArray[np.float64] | None]]  # T_sensor_rig by rig and sensor
CameraRecord = tuple[str, int, int, tuple[float, ...]]  # model, width, height, parameters
CAMERA_SENSOR = 0

# COLMAP's model number -> name and count of parameters
CAMERA_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
PARAMETER_COUNTS = dict(CAMERA_MODELS.values())


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image; a pose that is not rigid means that the image is not registered."""

    image_id: int
    name: str
    camera_id: int
    T_cam_world: NDArray[np.float64]  # (4, 4)
    keypoints: NDArray[np.float64]  # (N, 2), top-left pixel centre at (0.5, 0.5)
    point_ids: NDArray[np.int64]  # (N,), -1 for none


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One instant of a rig and the camera images taken then."""

    rig_id: int
    T_rig_world: NDArray[np.float64]  # (4, 4)
    images: tuple[tuple[Sensor, int], ...]  # camera sensor and image id


@dataclass(frozen=True, slots=True)
class PointRecords:
    """All points, sorted by id."""

    ids: NDArray[np.int64]  # (P,)
    positions: NDArray[np.float64]  # (P, 3)
    errors_px: NDArray[np.float64]  # (P,)

    @classmethod
    def sorted_by_id(cls, ids: object, positions: object, errors_px: object) -> PointRecords:
        id_array = np.asarray(ids, dtype=np.int64).reshape(-1)
        order = np.argsort(id_array, kind="stable")
        position_array = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
        error_array = np.asarray(errors_px, dtype=np.float64).reshape(-1)
        return cls(id_array[order], position_array[order], error_array[order])


def pose(values: object) -> NDArray[np.float64]:
    """(4, 4) from qw qx qy qz tx ty tz; NaN throughout when the quaternion is none."""
    numbers = np.asarray(values, dtype=np.float64)
    norm = np.linalg.norm(numbers[:4])
    if numbers.shape != (7,) or not np.isfinite(numbers).all() or norm < 1e-6:
        return np.full((4, 4), np.nan)
    return se3.from_qvec_wxyz(numbers[:4], numbers[4:])
