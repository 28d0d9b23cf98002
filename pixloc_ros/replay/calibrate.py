"""Calibrate a camera by a drive over a map: localize the bag, compare with its odometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import Config
from pixloc_ros.errors import BagError, ConfigError
from pixloc_ros.geometry import se3
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
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import localize_drive
from pixloc_ros.sensors.topics import Topics

HELD_SHARE = 0.25  # of the frames, at the end: they judge what the others tell


@dataclass(frozen=True, slots=True, eq=False)
class CameraCalibration:
    """What a drive over a map tells of its camera."""

    estimate: MountingEstimate
    T_base_cam: Matrix  # (4, 4) as it is
    time_offset_s: float  # to be added to the stamps of images
    localized: int
    frames: int
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
        settings = {"/**": {"ros__parameters": {"node": node}}}
        return yaml.safe_dump(settings, default_flow_style=None, sort_keys=False)


def calibrate(
    bag: Path, config: Config, topics: Topics | None = None, progress: Progress = silent
) -> CameraCalibration:
    """Localize a bag on the configured map, and find mounting and time offset by its odometry.

    Raises BagError, DataError and others of PixlocError for a bag that cannot tell.
    """
    if config.node.cameras:
        raise ConfigError("one camera at a time: leave out node.cameras and name its --topic")
    (recorded,) = read_drives([bag], config, topics)
    if recorded.odometry is None:
        raise BagError(f"bag {bag} has no odometry, by which a mounting shows: record it too")
    (camera,) = recorded.cameras
    drive, frames = _localized(bag, config, topics, camera.T_base_cam, progress)
    estimate = estimate_mounting(drive, recorded.odometry)
    before, after = _held(drive, recorded.odometry)
    return CameraCalibration(
        estimate=estimate,
        T_base_cam=corrected(camera.T_base_cam, estimate.values),
        time_offset_s=config.node.camera_time_offset_s + float(estimate.values[6]),
        localized=len(drive.stamps_ns),
        frames=frames,
        before=before,
        after=after,
    )


def _localized(
    bag: Path, config: Config, topics: Topics | None, T_base_cam: Matrix, progress: Progress
) -> tuple[LocalizedDrive, int]:
    """The frames with a pose, and the number of all."""
    with BagReader(bag, topics) as reader:
        estimates = localize_drive(reader, Localizer(config), progress)
    drive = LocalizedDrive.of(estimates, T_base_cam)
    if not len(drive.stamps_ns):
        raise BagError(f"no image of bag {bag} was localized on the map: try `pixloc replay`")
    return drive, len(estimates)


def _held(
    drive: LocalizedDrive, odometry: RecordedOdometry
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Disagreement in the last part of a drive, before and after what the first part tells."""
    end = round((1.0 - HELD_SHARE) * len(drive.stamps_ns))
    values = estimate_mounting(drive.part(slice(end)), odometry).values
    only_odometry = np.where(np.arange(8) == 7, values, 0.0)
    held = drive.part(slice(end, None))
    return disagreement(held, odometry, only_odometry), disagreement(held, odometry, values)
