"""COLMAP's little-endian binary files. Errors are ValueError or struct.error, see colmap.py."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pixloc_ros.maps.files.colmap_records import (
    CAMERA_MODELS,
    CAMERA_SENSOR,
    CameraRecord,
    FrameRecord,
    ImageRecord,
    PointRecords,
    RigRecords,
    Sensor,
    pose,
)

KEYPOINT = np.dtype([("xy", "<f8", 2), ("point_id", "<i8")])
POINT_HEAD = struct.Struct("<Q3d3BdQ")  # id, xyz, rgb, error, track length
TRACK_ELEMENT_BYTES = 8


class _Cursor:
    """Reads a whole file front to back; every read past its end is an error."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.at = 0

    def read(self, layout: str) -> tuple:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def integer(self, layout: str) -> int:
        return int(self.read(layout)[0])

    def array(self, dtype: DTypeLike, count: int) -> NDArray:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def string(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def finish(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many")


def read_cameras(path: Path) -> dict[int, CameraRecord]:
    """cameras.bin by camera id."""
    cursor = _Cursor(path)
    cameras = {}
    for _ in range(cursor.integer("Q")):
        camera_id, model_id, width, height = cursor.read("IiQQ")
        name, n_params = CAMERA_MODELS.get(model_id) or _unknown_model(model_id)
        cameras[camera_id] = (name, width, height, cursor.read(f"{n_params}d"))
    cursor.finish()
    return cameras


def read_images(path: Path) -> list[ImageRecord]:
    """images.bin in the order of the file."""
    cursor = _Cursor(path)
    images = [_read_image(cursor) for _ in range(cursor.integer("Q"))]
    cursor.finish()
    return images


def read_points(path: Path) -> PointRecords:
    """points3D.bin without colours and tracks, which the images hold as well."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    rows, at = [], 8
    for _ in range(count):
        point_id, x, y, z, _, _, _, error_px, track_length = POINT_HEAD.unpack_from(data, at)
        rows.append((point_id, (x, y, z), error_px))
        at += POINT_HEAD.size + TRACK_ELEMENT_BYTES * track_length
    if at != len(data):
        raise ValueError(f"{len(data)} bytes where {at} were expected")
    ids, positions, errors_px = zip(*rows, strict=True) if rows else ((), (), ())
    return PointRecords.sorted_by_id(ids, positions, errors_px)


def read_rigs(path: Path) -> RigRecords:
    """rigs.bin: the reference sensor has the identity, the others their T_sensor_rig or None."""
    cursor = _Cursor(path)
    rigs: RigRecords = {}
    for _ in range(cursor.integer("Q")):
        rig_id, n_sensors = cursor.read("II")
        sensors = rigs.setdefault(rig_id, {})
        for index in range(n_sensors):
            sensor: Sensor = cursor.read("iI")
            if index == 0:
                sensors[sensor] = np.eye(4)
            else:
                sensors[sensor] = pose(cursor.read("7d")) if cursor.integer("B") else None
    cursor.finish()
    return rigs


def read_frames(path: Path) -> list[FrameRecord]:
    """frames.bin in the order of the file."""
    cursor = _Cursor(path)
    frames = []
    for _ in range(cursor.integer("Q")):
        _, rig_id = cursor.read("II")
        T_rig_world = pose(cursor.read("7d"))
        data = [cursor.read("iIQ") for _ in range(cursor.integer("I"))]
        images = tuple(((kind, i), image) for kind, i, image in data if kind == CAMERA_SENSOR)
        frames.append(FrameRecord(rig_id, T_rig_world, images))
    cursor.finish()
    return frames


def _read_image(cursor: _Cursor) -> ImageRecord:
    image_id, *pose_numbers, camera_id = cursor.read("I7dI")
    name = cursor.string()
    keypoints = cursor.array(KEYPOINT, cursor.integer("Q"))
    return ImageRecord(
        image_id, name, camera_id, pose(pose_numbers), keypoints["xy"], keypoints["point_id"]
    )


def _unknown_model(model_id: int) -> tuple[str, int]:
    raise ValueError(f"camera model number {model_id} is unknown")
