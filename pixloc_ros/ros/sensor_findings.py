"""Judge whether the messages of camera and odometry fit each other and the configuration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixloc_ros.config import NodeConfig
from pixloc_ros.doctor import Finding
from pixloc_ros.ros.watched_topic import WatchedTopic
from pixloc_ros.sensors import video
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import CameraInfoEvent, ImageEvent, OdometryEvent
from pixloc_ros.sensors.static_transforms import normalized
from pixloc_ros.sensors.vehicle_frames import VehicleFrames

MAX_SKEW_S = 0.5  # between the stamps of two sensors whose messages arrive together


def about_odometry(
    odometry: WatchedTopic, frames: VehicleFrames, config: NodeConfig
) -> Iterator[Finding]:
    """Check that odometry has the frames that the node expects; yield nothing if none came."""
    event = odometry.event
    if not isinstance(event, OdometryEvent) or config.odom_source != "topic":
        return
    detail, fine = f"'{event.child_frame_id}' in '{event.frame_id}'", True
    try:
        frames.odometry_of_base(event, config)
    except BadMessage as error:
        detail, fine = str(error), False
    remedy = "" if fine else "correct the driver, set node.odom_frame, or publish /tf_static"
    yield Finding("odometry frames", fine, detail, remedy)


def about_calibration(
    image: WatchedTopic,
    info: WatchedTopic | None,
    frames: VehicleFrames,
    config: NodeConfig,
    of: str,
) -> Iterator[Finding]:
    """Check the frames and sizes of image and calibration; yield nothing if one is missing.

    A calibration from a file has no frame, and its size is known only to the node.
    """
    if image.last is None:
        return
    if info is not None and info.last is not None:
        yield _about_frame(image, info, config, of)
        yield from _about_size(image, info, of)
    elif not config.camera_info_url:
        return
    camera = normalized(config.camera_frame) or normalized(video.header(image.last).frame_id)
    known = frames.camera_mounting(camera, config) is not None
    detail = frames.mounting_source(camera, config)
    yield Finding(f"mounting{of}", known, detail, "" if known else "publish it on /tf_static")


def _about_frame(image: WatchedTopic, info: WatchedTopic, config: NodeConfig, of: str) -> Finding:
    """Check that image and calibration name the same frame, unless the configuration does."""
    seen, calibrated = (normalized(video.header(t.last).frame_id) for t in (image, info))
    fine = bool(config.camera_frame) or seen == calibrated
    remedy = "" if fine else "correct the driver, or set node.camera_frame"
    detail = f"image '{seen}', camera_info '{calibrated}'"
    return Finding(f"camera frame{of}", fine, detail, remedy)


def _about_size(image: WatchedTopic, info: WatchedTopic, of: str) -> Iterator[Finding]:
    """Check that an image can be decoded and has the size of its calibration."""
    picture, calibration = image.event, info.event
    if not (isinstance(picture, ImageEvent) and isinstance(calibration, CameraInfoEvent)):
        return
    size = calibration.camera.width, calibration.camera.height
    detail, fine = f"image and camera_info are {size[0]}x{size[1]}", True
    try:
        picture.decode(size)
    except BadMessage as error:
        detail, fine = str(error), False
    remedy = "" if fine else "calibrate for this size, or correct the driver"
    yield Finding(f"image size{of}", fine, detail, remedy)


def calibration_of(image: WatchedTopic, watched: list[WatchedTopic]) -> WatchedTopic | None:
    """Return the only `camera_info`; for a rig, the one in the namespace of the image."""
    infos = [each for each in watched if each.part == "camera_info"]
    if len(infos) == 1:
        return infos[0]
    space = _camera_space(image)
    return next((each for each in infos if _camera_space(each) == space), None)


def _camera_space(topic: WatchedTopic) -> str:
    """Return `/front` for `/front/image`, `/front/image/compressed` and `/front/camera_info`."""
    return topic.name.removesuffix("/compressed").rpartition("/")[0]


def about_stamps(image: WatchedTopic, odometry: WatchedTopic, of: str) -> Iterator[Finding]:
    """Check how far the clocks behind the stamps differ; network delays cancel."""
    if not (image.ages_s and odometry.ages_s):
        return
    skew_s = float(np.median(image.ages_s) - np.median(odometry.ages_s))
    fine = abs(skew_s) <= MAX_SKEW_S
    detail = (
        f"image stamps are {abs(skew_s):.2f} s {'behind' if skew_s > 0 else 'ahead of'} odometry"
    )
    remedy = "" if fine else "synchronize the clocks (chrony, PTP)"
    yield Finding(f"stamps{of}", fine, detail, remedy)
