"""A drive as it was recorded: images, odometry, GNSS fixes; whatever file it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.datum import AnyDatum

Stamps = NDArray[np.int64]
RgbImage = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True, slots=True)
class RecordedCamera:
    """One camera of the vehicle, its calibration and its mounting."""

    name: str  # empty where there is only one
    camera: Camera
    T_base_cam: Matrix  # (4, 4)


@dataclass(frozen=True, slots=True)
class RecordedImage:
    """An image that is decoded when it is asked for; `decode` raises DataError."""

    camera_name: str
    stamp_ns: int
    decode: Callable[[], RgbImage]


@dataclass(frozen=True, slots=True)
class RecordedOdometry:
    """Poses of the vehicle in an odometry frame, sorted by stamp. Only those of one epoch relate
    to each other: a gap or a jump begins another."""

    stamps_ns: Stamps  # (N,)
    T_odom_base: Matrix  # (N, 4, 4)
    epoch: NDArray[np.int64]  # (N,)

    def covers(self, stamps_ns: Stamps) -> NDArray[np.bool_]:
        """(M,) whether stamps lie between two poses of one epoch."""
        after = np.searchsorted(self.stamps_ns, stamps_ns).clip(1, len(self.stamps_ns) - 1)
        inside = (stamps_ns >= self.stamps_ns[0]) & (stamps_ns <= self.stamps_ns[-1])
        return np.asarray(inside & (self.epoch[after] == self.epoch[after - 1]))

    def at(self, stamps_ns: Stamps) -> Matrix:
        """T_odom_base (M, 4, 4) at stamps, held at both ends; linear and SLERP between."""
        t = (np.clip(stamps_ns, self.stamps_ns[0], self.stamps_ns[-1]) - self.stamps_ns[0]) / 1e9
        knots = (self.stamps_ns - self.stamps_ns[0]) / 1e9
        T = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        T[:, :3, :3] = Slerp(knots, Rotation.from_matrix(self.T_odom_base[:, :3, :3]))(
            t
        ).as_matrix()
        for axis in range(3):
            T[:, axis, 3] = np.interp(t, knots, self.T_odom_base[:, axis, 3])
        return T

    def velocity_base(self, stamps_ns: Stamps, over_s: float = 0.2) -> tuple[Matrix, Matrix]:
        """Velocity (M, 3) in m/s and turn rate (M, 3) in rad/s, in the vehicle's axes."""
        half_ns = round(over_s / 2 * 1e9)
        before, after = self.at(stamps_ns - half_ns), self.at(stamps_ns + half_ns)
        step = se3.inverse(before) @ after
        turn = Rotation.from_matrix(step[:, :3, :3]).as_rotvec()
        return step[:, :3, 3] / over_s, turn / over_s

    def epoch_at(self, stamps_ns: Stamps) -> NDArray[np.int64]:
        """(M,) the epoch that stamps are of."""
        after = np.searchsorted(self.stamps_ns, stamps_ns).clip(0, len(self.stamps_ns) - 1)
        return self.epoch[after]


@dataclass(frozen=True, slots=True)
class RecordedFixes:
    """GNSS fixes in the axes of a datum, sorted by stamp."""

    stamps_ns: Stamps  # (N,)
    positions_map: Matrix  # (N, 3) metres, of the antenna
    covariance: Matrix  # (N, 3, 3) m^2
    antenna_base: Matrix  # (N, 3) metres, in base_link


@dataclass(frozen=True, slots=True)
class RecordedDrive:
    """What a recording holds; `read_images` begins anew with each call."""

    name: str
    cameras: tuple[RecordedCamera, ...]
    odometry: RecordedOdometry | None
    fixes: RecordedFixes | None
    datum: AnyDatum | None  # of the fixes
    image_count: int
    read_images: Callable[[], Iterator[RecordedImage]]
    identity: str  # changes whenever the recording does
    notes: tuple[str, ...] = ()  # what of the recording is not used, and why

    def camera(self, name: str) -> RecordedCamera:
        """The camera of that name."""
        return next(camera for camera in self.cameras if camera.name == name)

    def without_odometry(self) -> RecordedDrive:
        """The same as if no odometry had been recorded."""
        return replace(self, odometry=None, identity=f"{self.identity};without odometry")

    def without_fixes(self) -> RecordedDrive:
        """The same as if no fix had been recorded."""
        identity = f"{self.identity};without fixes"
        return replace(self, fixes=None, datum=None, identity=identity)
