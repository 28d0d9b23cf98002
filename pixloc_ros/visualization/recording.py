"""A run as a file for the rerun viewer: map, prior, pose, points and image over time.

    rerun FILE

Optional: `pip install 'pixloc_ros[view]'` brings rerun-sdk, needed to write and to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.errors import ConfigError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Alignment, Estimate
from pixloc_ros.visualization import drawing, overlay

_MAP_POINTS = 200_000  # more are slow to turn around
_ROUND_M = 100.0  # of the origin: the viewer draws with 32 bits
_SIGMAS = 2.0  # of the ellipsoids
_AXES_M = 1.0
_JPEG_QUALITY = 85


def rerun_sdk() -> Any:
    """The package rerun; raises ConfigError where it is missing."""
    try:
        import rerun
    except ImportError:
        raise ConfigError("--view needs rerun-sdk: pip install 'pixloc_ros[view]'") from None
    return rerun


def record(
    path: Path,
    points_map: Matrix,
    keyframes_xyz: Matrix,
    camera: Camera,
    frames: Iterable[tuple[Estimate, NDArray[np.uint8] | None]],
) -> None:
    """Write a whole run; camera: of its images, as first seen. Raises DataError, ConfigError."""
    with atomic_path(path) as part:
        recording = Recording(part)
        recording.show_map(points_map, keyframes_xyz)
        for estimate, image_rgb in frames:
            recording.add(estimate, image_rgb, camera)
        recording.close()


class Recording:
    """Writes one file, frame after frame."""

    def __init__(self, path: Path) -> None:
        self._rerun = rerun_sdk()
        self._stream = self._rerun.RecordingStream("pixloc_ros")
        self._stream.save(path)
        self._origin = np.zeros(3)
        self._path: list[Matrix] = []

    def close(self) -> None:
        """Write what is still under way."""
        self._stream.disconnect()

    def show_map(self, points_map: Matrix, keyframes_xyz: Matrix) -> None:
        """Points (P, 3) coloured by height, and where the keyframes (M, 3) were taken."""
        self._origin = _ROUND_M * np.round(keyframes_xyz.mean(axis=0) / _ROUND_M)
        points = points_map[:: max(1, -(-len(points_map) // _MAP_POINTS))]
        low, high = np.percentile(points[:, 2], [2, 98])
        height = (points[:, 2] - low) / max(high - low, 1e-6)
        colors = drawing.colors(height, cv2.COLORMAP_VIRIDIS).reshape(-1, 3)
        log, kinds = self._stream.log, self._rerun
        log("/", kinds.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        log("map/points", kinds.Points3D(points - self._origin, colors=colors), static=True)
        log("map/keyframes", kinds.Points3D(keyframes_xyz - self._origin, radii=0.1), static=True)

    def add(self, estimate: Estimate, image_rgb: NDArray[np.uint8] | None, camera: Camera) -> None:
        """One frame at its stamp: what was believed before, what was seen, what came of it."""
        self._stream.set_time("stamp", timestamp=np.datetime64(estimate.stamp_ns, "ns"))
        for name in ("vehicle", "camera"):
            self._stream.log(name, self._rerun.Clear(recursive=True))
        words = f"{estimate.status} {estimate.reason}: {estimate.message}"
        self._stream.log("verdict", self._rerun.TextLog(words))
        if estimate.prior is not None:
            prior = estimate.prior
            self._log_pose("vehicle/prior", prior.T_map_base, prior.covariance, overlay.PRIOR_COLOR)
        if estimate.T_map_base is not None and estimate.covariance is not None:
            color = overlay.STATUS_COLORS[estimate.status]
            self._log_pose("vehicle/pose", estimate.T_map_base, estimate.covariance, color)
            self._extend_path(estimate.T_map_base)
        if image_rgb is not None:
            self._log_image(image_rgb)
        if estimate.alignment is not None:
            self._log_alignment(estimate.alignment.of_camera(0), camera)

    def _log_pose(
        self, name: str, T_map_base: Matrix, covariance: Matrix, color: drawing.Color
    ) -> None:
        """Axes of the vehicle, and the ellipsoid of its position."""
        center = T_map_base[:3, 3] - self._origin
        axes = self._rerun.Arrows3D(
            vectors=_AXES_M * T_map_base[:3, :3].T, origins=[center] * 3, colors=np.eye(3)
        )
        variances, directions = np.linalg.eigh(covariance[:3, :3])
        directions[:, 0] *= np.sign(np.linalg.det(directions))
        ellipsoid = self._rerun.Ellipsoids3D(
            half_sizes=[_SIGMAS * np.sqrt(np.maximum(variances, 0.0))],
            centers=[center],
            quaternions=[Rotation.from_matrix(directions).as_quat()],
            colors=[color],
        )
        self._stream.log(name, axes)
        self._stream.log(f"{name}/sigma", ellipsoid)

    def _extend_path(self, T_map_base: Matrix) -> None:
        self._path.append(T_map_base[:3, 3] - self._origin)
        self._stream.log("path", self._rerun.LineStrips3D([np.array(self._path)]))

    def _log_image(self, image_rgb: NDArray[np.uint8]) -> None:
        jpeg = image_files.encode(image_rgb, jpeg_quality=_JPEG_QUALITY)
        picture = self._rerun.EncodedImage(contents=jpeg, media_type="image/jpeg")
        self._stream.log("camera/image", picture)

    def _log_alignment(self, alignment: Alignment, camera: Camera) -> None:
        """Points in the map and in the image, coloured by residual; the lens is drawn straight."""
        T_near_cam, kinds = alignment.T_map_cam.copy(), self._rerun
        T_near_cam[:3, 3] -= self._origin
        pose = kinds.Transform3D(translation=T_near_cam[:3, 3], mat3x3=T_near_cam[:3, :3])
        lens = kinds.Pinhole(
            width=camera.width,
            height=camera.height,
            focal_length=camera.focal.tolist(),
            principal_point=camera.center.tolist(),
            image_plane_distance=2.0,
        )
        seen = np.isfinite(alignment.residuals)
        colors = drawing.colors(alignment.residuals[seen] / overlay.WORST_RESIDUAL).reshape(-1, 3)
        points = alignment.points_map[seen] - self._origin
        at_prior = alignment.pixels_prior[np.isfinite(alignment.pixels_prior).all(axis=-1)]
        log = self._stream.log
        log("camera", pose)
        log("camera/image", lens)
        log("camera/image/pose", kinds.Points2D(alignment.pixels[seen], colors=colors, radii=2.0))
        log("camera/image/prior", kinds.Points2D(at_prior, colors=[overlay.PRIOR_COLOR], radii=1.0))
        log("vehicle/points", kinds.Points3D(points, colors=colors, radii=0.05))
        log("figures/cost", kinds.Scalars(alignment.cost))
        log("figures/inlier_share", kinds.Scalars(alignment.inlier_share))
        moved_m = se3.distance_m(alignment.T_map_cam_prior, alignment.T_map_cam)
        log("figures/prior_offset_m", kinds.Scalars(moved_m))
