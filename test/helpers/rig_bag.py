"""The street's drive as a vehicle with two cameras records it: one ahead, one to the left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from helpers.drives import write_messages
from helpers.street import SMALL, small_street
from pixloc_ros.demo.street.render import render
from pixloc_ros.demo.street.sessions import SESSIONS
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay import messages
from pixloc_ros.replay.storage import open_sources

LEFT_DEG = 14.0
LEFT_LATE_NS = 8_000_000  # its images are taken so long after those ahead
LEFT_FRAME = "left_optical"


def write_rig_bag(street: Path, output: Path) -> Path:
    """From map/, data/ and bag/ of the fixture `street`; topics begin with front and left."""
    return write_messages(output, sorted(_messages(street), key=lambda timed: timed[0]))


def _messages(street: Path) -> Iterator[tuple[int, str, Any]]:
    store = messages.typestore()
    (source,) = open_sources(street / "bag")
    drive = read_posed_images(
        street / "data" / "drive" / "meta.json", street / "data" / "drive" / "images"
    )
    turned = se3.make(Rotation.from_euler("z", LEFT_DEG, degrees=True).as_matrix(), [0.1, 0.4, 0])
    T_base_left = turned @ drive.T_base_cam
    yield 1, "/tf_static", messages.static_transform(1, "base_link", LEFT_FRAME, T_base_left)
    lefts = iter(_left_images(street, T_base_left))
    for raw in source.messages(set(source.types), None, None):
        message = store.deserialize_cdr(raw.data, source.types[raw.topic])
        if raw.topic not in ("/image", "/camera_info"):
            yield raw.log_ns, raw.topic, message
            continue
        yield raw.log_ns, f"/front{raw.topic}", message
        stamp_ns = raw.log_ns + LEFT_LATE_NS
        if raw.topic == "/image":
            yield stamp_ns, "/left/image", messages.image(stamp_ns, LEFT_FRAME, next(lefts))
        else:
            info = messages.camera_info(stamp_ns, LEFT_FRAME, drive.cameras[0])
            yield stamp_ns, "/left/camera_info", info
    source.close()


def _left_images(street: Path, T_base_left: np.ndarray) -> Iterator[np.ndarray]:
    world, rng = small_street("later"), np.random.default_rng(5)
    truth = read_tum(street / "bag.truth.txt")
    for stamp_ns in truth.stamps_ns:
        T_map_base = _between(truth, stamp_ns + LEFT_LATE_NS)
        view = render(world, T_map_base @ T_base_left, SMALL.K, SMALL.width, SMALL.height)
        yield SESSIONS["later"].exposure.apply(view.image_rgb, rng)


def _between(truth: Any, stamp_ns: int) -> np.ndarray:
    """The true pose between two frames, or carried on after the last one, at constant speed."""
    after = int(np.clip(np.searchsorted(truth.stamps_ns, stamp_ns), 1, len(truth.stamps_ns) - 1))
    (start_ns, end_ns), (T_0, T_1) = (
        truth.stamps_ns[after - 1 :][:2],
        truth.T_map_base[after - 1 :][:2],
    )
    share = (stamp_ns - start_ns) / (end_ns - start_ns)
    step = Rotation.from_matrix(T_0[:3, :3].T @ T_1[:3, :3]).as_rotvec()
    R = T_0[:3, :3] @ Rotation.from_rotvec(share * step).as_matrix()
    return se3.make(R, T_0[:3, 3] + share * (T_1[:3, 3] - T_0[:3, 3]))
