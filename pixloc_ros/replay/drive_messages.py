"""Generate the messages of a simulated drive, in the order in which a recorder would write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymap3d
from scipy.spatial.transform import Rotation

from pixloc_ros.common import image_files
from pixloc_ros.common.progress import Progress
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.degradation import degradation
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import PosedImages
from pixloc_ros.replay import messages, simulated_sensors
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.video_encoder import VideoEncoder

# Of the initial pose, and of pose fixes: those of an INS with heading, not of a bare receiver.
INITIAL_SIGMA_M, INITIAL_SIGMA_DEG = 0.5, 2.0
POSE_SIGMA_DEG = 1.0

Timed = tuple[int, str, Any]  # stamp_ns, part, message


def drive_messages(
    drive: PosedImages, selected: np.ndarray, options: BagOptions, progress: Progress
) -> Iterator[Timed]:
    """Yield all messages by stamp; at equal stamps odometry and CameraInfo precede the image."""
    path = simulated_sensors.TimedPoses(drive.stamps_ns, drive.T_map_base)
    # One generator per sensor, so that omitting a sensor does not change the others' noise.
    rng_odometry, rng_gnss, rng_start = np.random.default_rng(options.seed).spawn(3)
    others = [*_odometry(path, options, rng_odometry), *_gnss(path, options, rng_gnss)]
    if options.initial_pose:
        others.append(_initial_pose(path, options, rng_start))
    others.sort(key=lambda item: item[0])
    start_ns = int(drive.stamps_ns[0])
    yield (
        start_ns,
        "tf_static",
        messages.static_transform(
            start_ns, options.base_frame, options.camera_frame, drive.T_base_cam
        ),
    )
    encoder = VideoEncoder(options.video) if options.video else None
    position = 0
    for index in progress(selected, "writing frames", len(selected)):
        while position < len(others) and others[position][0] <= drive.stamps_ns[index]:
            yield others[position]
            position += 1
        yield from _frame(drive, int(index), options, encoder)
    yield from others[position:]


def _frame(
    drive: PosedImages, index: int, options: BagOptions, encoder: VideoEncoder | None
) -> Iterator[Timed]:
    stamp_ns, frame = int(drive.stamps_ns[index]), options.camera_frame
    file, camera = drive.files[index], drive.cameras[index]
    untouched = not options.degrade and options.scale == 1.0 and encoder is None
    if options.compressed and untouched and file.suffix.lower() in (".jpg", ".jpeg"):
        image = messages.compressed_image(stamp_ns, frame, file.read_bytes())
    else:
        image_rgb, camera = _prepared(file, camera, options, index)
        image = _image_message(stamp_ns, frame, image_rgb, options.compressed, encoder)
    yield stamp_ns, "camera_info", messages.camera_info(stamp_ns, frame, camera)
    yield stamp_ns, "image", image


def _prepared(
    file: Path, camera: Camera, options: BagOptions, index: int
) -> tuple[np.ndarray, Camera]:
    image_rgb = image_files.read(file)
    if image_rgb is None:
        raise DataError(f"image {file} cannot be decoded")
    check_size(f"image {file}", image_rgb, camera)
    height, width = image_rgb.shape[:2]
    if options.scale != 1.0:
        size = (max(1, round(width * options.scale)), max(1, round(height * options.scale)))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
        camera = camera.scale([size[0] / width, size[1] / height])
    if options.degrade:
        rng = np.random.default_rng([options.seed, index])
        return degradation(options.degrade)(np.asarray(image_rgb, np.uint8), rng), camera
    return np.asarray(image_rgb), camera


def check_size(what: str, image_rgb: np.ndarray, camera: Camera) -> None:
    """Raise DataError for an image (H, W, 3) whose size differs from its calibration."""
    height, width = image_rgb.shape[:2]
    if (width, height) != (camera.width, camera.height):
        calibrated = f"{camera.width}x{camera.height}"
        raise DataError(f"{what} is {width}x{height}, its calibration is for {calibrated}")


def _image_message(
    stamp_ns: int,
    frame: str,
    image_rgb: np.ndarray,
    compressed: bool,
    encoder: VideoEncoder | None,
) -> Any:
    if encoder is not None:
        packet = encoder.encode(image_rgb)
        return messages.video_packet(stamp_ns, frame, encoder.encoding, packet)
    if not compressed:
        return messages.image(stamp_ns, frame, image_rgb)
    return messages.jpeg_image(stamp_ns, frame, image_rgb)


def _odometry(
    path: simulated_sensors.TimedPoses, options: BagOptions, rng: np.random.Generator
) -> Iterator[Timed]:
    drift = simulated_sensors.simulate_odometry(path, simulated_sensors.OdometryModel(), rng)
    for stamp_ns, T_odom_base in zip(drift.stamps_ns.tolist(), drift.T_target_base, strict=True):
        yield (
            stamp_ns,
            "odom",
            messages.odometry(stamp_ns, options.odom_frame, options.base_frame, T_odom_base),
        )


def _gnss(
    path: simulated_sensors.TimedPoses, options: BagOptions, rng: np.random.Generator
) -> Iterator[Timed]:
    if options.gnss == "none":
        return
    model = simulated_sensors.RECEIVERS[options.receiver]
    stamps_ns, positions = simulated_sensors.simulate_gnss(path, model, rng)
    sigma_m = np.array([model.horizontal_sigma_m, model.horizontal_sigma_m, model.vertical_sigma_m])
    T_true = path.at(stamps_ns)
    for stamp_ns, position, T_map_base in zip(stamps_ns.tolist(), positions, T_true, strict=True):
        if options.gnss == "fix":
            assert options.datum is not None
            geodetic = _geodetic(options.datum, position)
            message = messages.nav_sat_fix(stamp_ns, options.gnss_frame, geodetic, sigma_m)
        else:
            T = _turned(T_map_base, POSE_SIGMA_DEG, rng)
            T[:3, 3] = position
            covariance = _covariance(sigma_m, POSE_SIGMA_DEG)
            message = messages.pose_with_covariance(stamp_ns, options.map_frame, T, covariance)
        yield stamp_ns, f"gnss_{options.gnss}", message


def _geodetic(datum: Datum, position_map: np.ndarray) -> tuple[float, float, float]:
    yaw_rad = np.deg2rad(datum.yaw_deg)
    east = np.cos(yaw_rad) * position_map[0] - np.sin(yaw_rad) * position_map[1]
    north = np.sin(yaw_rad) * position_map[0] + np.cos(yaw_rad) * position_map[1]
    return pymap3d.enu2geodetic(
        east, north, position_map[2], datum.latitude_deg, datum.longitude_deg, datum.altitude_m
    )


def _initial_pose(
    path: simulated_sensors.TimedPoses, options: BagOptions, rng: np.random.Generator
) -> Timed:
    stamp_ns = int(path.stamps_ns[0])
    T = _turned(path.T_target_base[0], INITIAL_SIGMA_DEG, rng)
    T[:3, 3] += rng.normal(0.0, INITIAL_SIGMA_M, 3)
    covariance = _covariance(np.full(3, INITIAL_SIGMA_M), INITIAL_SIGMA_DEG)
    message = messages.pose_with_covariance(stamp_ns, options.map_frame, T, covariance)
    return stamp_ns, "initialpose", message


def _turned(T_map_base: Matrix, sigma_deg: float, rng: np.random.Generator) -> Matrix:
    noise = Rotation.from_rotvec(rng.normal(0.0, np.deg2rad(sigma_deg), 3)).as_matrix()
    T = T_map_base.copy()
    T[:3, :3] = noise @ T[:3, :3]
    return T


def _covariance(sigma_m: np.ndarray, sigma_deg: float) -> Matrix:
    return np.diag([*sigma_m**2, *[np.deg2rad(sigma_deg) ** 2] * 3])
