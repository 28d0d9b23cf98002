"""COLMAP's text files. Errors are ValueError or IndexError, see colmap.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixloc_ros.maps.files.colmap_records import (
    CAMERA_SENSOR,
    PARAMETER_COUNTS,
    CameraRecord,
    FrameRecord,
    ImageRecord,
    PointRecords,
    RigRecords,
    Sensor,
    pose,
)

SENSOR_TYPES = {"CAMERA": CAMERA_SENSOR, "IMU": 1}


class _Words:
    """The words of one line, taken from the left."""

    def __init__(self, line: str) -> None:
        self.words = line.split()
        self.at = 0

    def take(self, count: int) -> list[str]:
        taken = self.words[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(f"line ends early: '{' '.join(self.words[:6])} ...'")
        self.at += count
        return taken

    def integer(self) -> int:
        return int(self.take(1)[0])

    def pose(self) -> np.ndarray:
        return pose([float(word) for word in self.take(7)])

    def sensor(self) -> Sensor:
        kind, sensor_id = self.take(2)
        return SENSOR_TYPES.get(kind, -1), int(sensor_id)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if line.strip() and not line.startswith("#"))


def read_cameras(path: Path) -> dict[int, CameraRecord]:
    """cameras.txt by camera id."""
    cameras = {}
    for line in _lines(path):
        words = line.split()
        params = tuple(float(word) for word in words[4:])
        if len(params) != PARAMETER_COUNTS.get(words[1], len(params)):
            raise ValueError(f"{words[1]} has {PARAMETER_COUNTS[words[1]]} parameters")
        cameras[int(words[0])] = (words[1], int(words[2]), int(words[3]), params)
    return cameras


def read_images(path: Path) -> list[ImageRecord]:
    """images.txt in the order of the file. The second line of an image may be empty."""
    images = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                keypoint_line = file.readline()
                if not keypoint_line.endswith("\n") and not keypoint_line.strip():
                    raise ValueError("the keypoints of the last image are missing")
                images.append(_image(line, keypoint_line))
    return images


def _image(line: str, keypoint_line: str) -> ImageRecord:
    words = line.rstrip("\r\n").split(maxsplit=9)  # the name is the rest, with its spaces
    keypoints = np.array(keypoint_line.split(), dtype=np.float64).reshape(-1, 3)
    pose_numbers = [float(word) for word in words[1:8]]
    point_ids = keypoints[:, 2].astype(np.int64)
    return ImageRecord(
        int(words[0]), words[9], int(words[8]), pose(pose_numbers), keypoints[:, :2], point_ids
    )


def read_points(path: Path) -> PointRecords:
    """points3D.txt without colours and tracks, which the images hold as well."""
    rows = [line.split(maxsplit=8) for line in _lines(path)]
    ids = [int(row[0]) for row in rows]
    positions = [[float(word) for word in row[1:4]] for row in rows]
    return PointRecords.sorted_by_id(ids, positions, [float(row[7]) for row in rows])


def read_rigs(path: Path) -> RigRecords:
    """rigs.txt: the reference sensor has the identity, the others their T_sensor_rig or None."""
    rigs: RigRecords = {}
    for line in _lines(path):
        words = _Words(line)
        sensors = rigs.setdefault(words.integer(), {})
        for index in range(words.integer()):
            sensor = words.sensor()
            if index == 0:
                sensors[sensor] = np.eye(4)
            else:
                sensors[sensor] = words.pose() if words.integer() else None
    return rigs


def read_frames(path: Path) -> list[FrameRecord]:
    """frames.txt in the order of the file."""
    frames = []
    for line in _lines(path):
        words = _Words(line)
        _, rig_id, T_rig_world = words.integer(), words.integer(), words.pose()
        data = [(words.sensor(), words.integer()) for _ in range(words.integer())]
        images = tuple((sensor, i) for sensor, i in data if sensor[0] == CAMERA_SENSOR)
        frames.append(FrameRecord(rig_id, T_rig_world, images))
    return frames
