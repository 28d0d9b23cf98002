"""Calibrate a camera by a drive over a map: localize the bag, compare with its odometry.

Focal length and readout time, if asked for, are estimated first, from the images. The drive is then
localized again with them, and gives the mounting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import Config
from pixloc_ros.errors import BagError, ConfigError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.recorded_drive import RecordedOdometry
from pixloc_ros.priors.mounting import (
    LocalizedDrive,
    MountingEstimate,
    corrected,
    disagreement,
    estimate_mounting,
)
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.camera_parameters import (
    HELD_SHARE,
    MAX_FRAMES,
    ParameterEstimate,
    estimate_parameters,
    localized_frames,
)
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import drive_events, localize_drive
from pixloc_ros.sensors.events import CameraInfoEvent, Event
from pixloc_ros.sensors.topics import Topics
from pixloc_ros.types import Estimate, Frame


@dataclass(frozen=True, slots=True, eq=False)
class CameraCalibration:
    """What a drive over a map tells of its camera."""

    estimate: MountingEstimate
    T_base_cam: Matrix  # (4, 4) as it is
    time_offset_s: float  # to be added to the stamps of images
    localized: int
    frames: int
    camera: Camera  # as on camera_info, with the focal length that was found
    parameters_found: ParameterEstimate | None  # None: not asked for
    # Of steps that were held out, how poses and odometry differ: metres and radians.
    before: tuple[float, float]
    after: tuple[float, float]

    def parameters(self) -> str:
        """Settings for `--config` and for the node's parameter file."""
        quat_xyzw = se3.quat_xyzw(self.T_base_cam)
        numbers = [round(float(x), 6) for x in (*self.T_base_cam[:3, 3], *quat_xyzw)]
        node = {
            "camera_mounting": numbers,
            "camera_time_offset_s": round(self.time_offset_s, 4),
        }
        settings: dict[str, Any] = {"node": node}
        if self.parameters_found is not None and self.parameters_found.determined[1]:
            settings["camera"] = {"readout_s": round(self.parameters_found.readout_s, 5)}
        file = {"/**": {"ros__parameters": settings}}
        return yaml.safe_dump(file, default_flow_style=None, sort_keys=False)


def calibrate(
    bag: Path,
    config: Config,
    topics: Topics | None = None,
    progress: Progress = silent,
    focal_length: bool = False,
    readout: bool = False,
) -> CameraCalibration:
    """Localize a bag on the configured map, and find mounting and time offset by its odometry.

    focal_length, readout: find these as well. Raises BagError, DataError and others of PixlocError
    for a bag that cannot tell.
    """
    if config.node.cameras:
        raise ConfigError("one camera at a time: leave out node.cameras and name its --topic")
    (recorded,) = read_drives([bag], config, topics)
    if recorded.odometry is None:
        remedy = "; ".join(recorded.notes) or "record it too"
        raise BagError(f"bag {bag} has no odometry, by which a mounting shows: {remedy}")
    (camera,) = recorded.cameras
    localized = partial(_localized, bag, topics, progress)
    answered = localized(config)
    found = None
    if focal_length or readout:
        asked = np.array([focal_length, readout])
        sample = localized_frames(answered.sample, recorded.odometry)
        found = estimate_parameters(answered.localizer, sample, asked, progress)
        if found.off.any():
            shutter = config.camera.model_copy(update={"readout_s": found.readout_s})
            config = config.model_copy(update={"camera": shutter})
            answered = localized(config, found.focal_factor)
    drive = LocalizedDrive.of(answered.estimates, camera.T_base_cam)
    estimate = estimate_mounting(drive, recorded.odometry)
    before, after = _held(drive, recorded.odometry)
    return CameraCalibration(
        estimate=estimate,
        T_base_cam=corrected(camera.T_base_cam, estimate.values),
        time_offset_s=config.node.camera_time_offset_s + float(estimate.values[6]),
        localized=len(drive.stamps_ns),
        frames=len(answered.estimates),
        camera=_focused(camera.camera, found.focal_factor if found else 1.0),
        parameters_found=found,
        before=before,
        after=after,
    )


@dataclass(frozen=True, slots=True)
class _Answered:
    """All estimates of a drive, and a sample of its frames with theirs."""

    localizer: Localizer
    estimates: list[Estimate]
    sample: list[tuple[Frame, Estimate]]


def _localized(
    bag: Path,
    topics: Topics | None,
    progress: Progress,
    config: Config,
    focal_factor: float = 1.0,
) -> _Answered:
    """Localize all images of a bag, with another focal length than it says."""
    localizer = Localizer(config)
    estimates: list[Estimate] = []
    sample: list[tuple[Frame, Estimate]] = []
    with BagReader.configured(bag, config.node, topics) as reader:
        events = (_with_focal_length(e, focal_factor) for e in drive_events(reader))
        spacing = max(1, -(-reader.image_count // MAX_FRAMES))
        for answer in localize_drive(reader, localizer, progress, events):
            if answer.frame is not None and len(estimates) % spacing == 0:
                sample.append((answer.frame, answer.estimate))
            estimates.append(answer.estimate)
    if not any(estimate.ok for estimate in estimates):
        raise BagError(f"no image of bag {bag} was localized on the map: try `pixloc replay`")
    return _Answered(localizer, estimates, sample)


def _with_focal_length(event: Event, factor: float) -> Event:
    if not isinstance(event, CameraInfoEvent):
        return event
    return replace(event, camera=_focused(event.camera, factor))


def _focused(camera: Camera, factor: float) -> Camera:
    return replace(camera, focal=camera.focal * factor)


def _held(
    drive: LocalizedDrive, odometry: RecordedOdometry
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Disagreement in the last part of a drive, before and after what the first part tells."""
    end = round((1.0 - HELD_SHARE) * len(drive.stamps_ns))
    values = estimate_mounting(drive.part(slice(end)), odometry).values
    only_odometry = np.where(np.arange(8) == 7, values, 0.0)
    held = drive.part(slice(end, None))
    return disagreement(held, odometry, only_odometry), disagreement(held, odometry, values)
