"""Small drives for the tests of bags: random images on a curve, and bags of given messages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from pixloc_ros.maps.files.posed_images import PosedImages, read_posed_images
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.sensors.events import Event
from pixloc_ros.sensors.topics import Topics

WIDTH, HEIGHT = 96, 64
STEP_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000


def write_drive(folder: Path, count: int = 12, suffix: str = ".png", **extra: object) -> Path:
    """images/ and meta.json of a left turn at 10 m/s; the world has ROS axes. Returns meta.json."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries = []
    for i in range(count):
        name = f"{i:03d}{suffix}"
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / name), image)
        entries.append(
            {
                "file": name,
                "width": WIDTH,
                "height": HEIGHT,
                "K": [80.0, 81.0, 47.2, 31.9],
                "T_world_cam": curve_pose(i)[:3].ravel().tolist(),
                "t": 0.1 * i,
            }
        )
    content = {"world_axes": "ros", "images": entries, **extra}
    meta = folder / "meta.json"
    meta.write_text(json.dumps(content))
    return meta


def curve_pose(i: int) -> np.ndarray:
    """T_world_cam of an optical frame that drives along x and turns left."""
    yaw = 0.05 * i
    R_base_optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix() @ R_base_optical
    T[:3, 3] = [20 * np.sin(yaw), 20 * (1 - np.cos(yaw)), 1.5]
    return T


def read_drive(meta: Path, axes: str = "keep") -> PosedImages:
    return read_posed_images(meta, meta.parent / "images", axes)


def write_messages(path: Path, timed: list, storage: str = "mcap") -> Path:
    """A bag of (stamp_ns, topic, message) in the given order."""
    store = messages.typestore()
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for stamp_ns, topic, message in timed:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp_ns, store.serialize_cdr(message, kind))
    return path


def read(path: Path, topics: Topics | None = None) -> tuple[list[Event], BagReader]:
    """All events of a bag, and its reader."""
    with BagReader(path, topics) as reader:
        return list(reader), reader


def of(kind: type, events: list[Event]) -> list[Any]:
    """Those of one kind."""
    return [event for event in events if isinstance(event, kind)]


def first_frames(drive: PosedImages, count: int) -> PosedImages:
    """The beginning of a drive."""
    return replace(
        drive,
        files=drive.files[:count],
        stamps_ns=drive.stamps_ns[:count],
        cameras=drive.cameras[:count],
        T_map_base=drive.T_map_base[:count],
    )
