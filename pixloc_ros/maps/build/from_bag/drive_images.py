"""The keyframes of drives as images by number, with the moments at which they were taken."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage
from pixloc_ros.maps.build.from_bag.trajectory import Moment, SmoothTrajectory
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.files.recorded_drive import RecordedDrive, RecordedFixes, Stamps
from pixloc_ros.maps.schema import file_sha256


@dataclass(frozen=True, slots=True, eq=False)
class DriveImages:
    """N images of keyframes; those of one moment share the vehicle's pose."""

    drives: Sequence[RecordedDrive]
    keyframes: Sequence[KeyframeImage]  # N
    files: Sequence[PosedImage]  # N, with their cameras; their poses are not known yet
    T_base_cam: Matrix  # (N, 4, 4)
    moments: tuple[Moment, ...]
    moment_of: list[int]  # N

    @classmethod
    def of(
        cls, drives: Sequence[RecordedDrive], keyframes: Sequence[KeyframeImage], folder: Path
    ) -> DriveImages:
        """Number keyframes, whose files are below a folder."""
        stamps = sorted({(k.drive, k.stamp_ns) for k in keyframes})
        number = {stamp: i for i, stamp in enumerate(stamps)}
        cameras = [drives[k.drive].camera(k.camera_name) for k in keyframes]
        return cls(
            drives,
            keyframes,
            files=[
                PosedImage(k.name, folder / k.name, camera.camera, np.eye(4))
                for k, camera in zip(keyframes, cameras, strict=True)
            ],
            T_base_cam=np.stack([camera.T_base_cam for camera in cameras]),
            moments=tuple(Moment(*stamp) for stamp in stamps),
            moment_of=[number[k.drive, k.stamp_ns] for k in keyframes],
        )

    @property
    def cameras(self) -> list[Camera]:
        """The calibration of each image."""
        return [file.camera for file in self.files]

    @property
    def drive_of(self) -> NDArray[np.int64]:
        """The drive (N,) of each image."""
        return np.array([k.drive for k in self.keyframes], np.int64)

    @property
    def stamps_ns(self) -> Stamps:
        """The stamp (N,) of each image."""
        return np.array([k.stamp_ns for k in self.keyframes], np.int64)

    @property
    def fixes(self) -> list[RecordedFixes]:
        """The GNSS fixes of the drives that have any."""
        return [drive.fixes for drive in self.drives if drive.fixes is not None]

    def T_map_cam(self, smooth: SmoothTrajectory) -> Matrix:
        """Poses (N, 4, 4) of the images along a trajectory."""
        return smooth.T_map_base[self.moment_of] @ self.T_base_cam

    def digest(self, mask: Path | None) -> str:
        """Return what stands for all that keypoints and matches depend on."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(repr((file.name, file.camera.to_colmap())).encode())
        for drive in self.drives:
            digest.update(drive.identity.encode())
        if mask is not None:
            digest.update(file_sha256(mask).encode())
        return digest.hexdigest()[:16]
