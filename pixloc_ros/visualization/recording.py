"""Write a run as a file for the rerun viewer: map, prior, pose, points and image over time.

    rerun FILE

Optional: `pip install 'pixloc_ros[view]'` installs rerun-sdk, needed to write and to view it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.types import Alignment, Estimate, Reason, Status
from pixloc_ros.visualization import drawing, overlay
from pixloc_ros.visualization.rerun_layout import TIMELINE, layout

_MAP_POINTS = 200_000  # the viewer turns more too slowly
_ROUND_M = 100.0  # rounding of the local origin, needed because the viewer draws with 32 bits
_SIGMAS = 10.0  # scale of the ellipsoids, so that centimetres are visible from metres away
_AXES_M = 1.5
_IMAGE_PLANE_M = 2.0
_DARKEST = 0.25  # start of the colour map of heights: darker colours vanish on black
_MAP_POINT = -2.0  # negative sizes are screen pixels, positive ones metres
_KEYFRAME = -2.5
_POINT = -3.0
_WAY = -2.5
_PIECE = 50  # frames per piece of the trajectory
_JPEG_QUALITY = 85
_KEYFRAME_COLOR = (120, 130, 145)
_TRUTH_COLOR = (255, 255, 255)
_IN_IMAGE = "camera/image/points"
_OF_ONE_FRAME = ("prior", "vehicle/axes", "aligned", "camera/image", _IN_IMAGE)
_REASON_COLOR = (150, 110, 60)
_FIGURES = {  # names of the curves, and their colours
    "evidence/wrong_probability": ("probability of being wrong", (235, 80, 70)),
    "evidence/cost": ("cost", (90, 150, 240)),
    "evidence/inlier_share": ("share of inliers", (80, 190, 120)),
    "metres/error": ("error", _TRUTH_COLOR),
    "metres/sigma": ("sigma", (80, 190, 120)),
    "prior_offset_m": ("offset of the prior", overlay.PRIOR_COLOR),
}
_LOG_LEVEL = {Status.OK: "INFO", Status.FAILED: "ERROR"}  # others are warnings


def rerun_sdk() -> Any:
    """Return the package rerun. Raises ConfigError if it is missing."""
    try:
        import rerun
        import rerun.blueprint
    except ImportError:
        raise ConfigError("--view needs rerun-sdk: pip install 'pixloc_ros[view]'") from None
    return rerun


def record(
    path: Path,
    points_map: Matrix,
    keyframes_xyz: Matrix,
    camera: Camera,
    frames: Iterable[tuple[Estimate, NDArray[np.uint8] | None]],
    truth: Trajectory | None = None,
) -> None:
    """Write a whole run. Raises DataError and ConfigError.

    points_map: (P, 3) metres. keyframes_xyz: (M, 3) metres.
    camera: of the run's images.
    frames: estimates with their images (H, W, 3) RGB, or None.
    """
    with atomic_path(path) as part:
        recording = Recording(part, truth)
        recording.show_map(points_map, keyframes_xyz)
        recording.show_lens(camera)
        recording.show_legend()
        for estimate, image_rgb in frames:
            recording.add(estimate, image_rgb)
        recording.close()


class Recording:
    """Writes one file, frame by frame. truth: of the vehicle, if known."""

    def __init__(self, path: Path, truth: Trajectory | None = None) -> None:
        self._rerun = rerun_sdk()
        self._stream = self._rerun.RecordingStream("pixloc_ros")
        self._stream.save(path, default_blueprint=layout(self._rerun.blueprint))
        self._truth = truth
        self._origin = np.zeros(3)
        self._piece = 0  # current piece of the trajectory
        self._strips: list[list[Matrix]] = [[]]
        self._ellipsoids: list[tuple[Matrix, Matrix]] = []

    def close(self) -> None:
        """Write all buffered data."""
        self._stream.disconnect()

    def show_map(self, points_map: Matrix, keyframes_xyz: Matrix) -> None:
        """Show points (P, 3) coloured by height, positions of keyframes (M, 3), and the truth."""
        self._origin = _ROUND_M * np.round(keyframes_xyz.mean(axis=0) / _ROUND_M)
        points = points_map[:: max(1, -(-len(points_map) // _MAP_POINTS))]
        low, high = np.percentile(points[:, 2], [2, 98])
        height = np.clip((points[:, 2] - low) / max(high - low, 1e-6), 0.0, 1.0)
        height = _DARKEST + (1.0 - _DARKEST) * height
        colors = drawing.colors(height, cv2.COLORMAP_VIRIDIS).reshape(-1, 3)
        kinds, keyframes = self._rerun, keyframes_xyz - self._origin
        self._log("/", kinds.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        drawn = kinds.Points3D(points - self._origin, colors=colors, radii=_MAP_POINT)
        self._log("map/points", drawn, static=True)
        drawn = kinds.Points3D(keyframes, colors=[_KEYFRAME_COLOR], radii=_KEYFRAME)
        self._log("map/keyframes", drawn, static=True)
        if self._truth is not None:
            xyz = self._truth.T_map_base[:, :3, 3] - self._origin
            drawn = kinds.LineStrips3D([xyz], colors=[_TRUTH_COLOR], radii=-0.8)
            self._log("map/truth", drawn, static=True)

    def show_legend(self) -> None:
        """Name the colours of verdicts and figures, for the whole drive."""
        kinds, failures = self._rerun, [reason for reason in Reason if reason is not Reason.OK]
        statuses = kinds.StateConfiguration(
            values=[str(status) for status in Status],
            colors=[overlay.STATUS_COLORS[status] for status in Status],
        )
        reasons = kinds.StateConfiguration(
            values=[str(Reason.OK), *map(str, failures)],
            colors=[_REASON_COLOR] * (1 + len(failures)),
            visible=[False] + [True] * len(failures),
        )
        self._log("verdict/status", statuses, static=True)
        self._log("verdict/reason", reasons, static=True)
        for name, (words, color) in _FIGURES.items():
            line = kinds.SeriesLines(colors=[color], names=[words], widths=[2.0])
            self._log(f"figures/{name}", line, static=True)

    def show_lens(self, camera: Camera) -> None:
        """Show the camera of all frames, drawn without distortion."""
        lens = self._rerun.Pinhole(
            width=camera.width,
            height=camera.height,
            focal_length=camera.focal.tolist(),
            principal_point=camera.center.tolist(),
            image_plane_distance=_IMAGE_PLANE_M,
        )
        self._log("camera/image", lens, static=True)

    def add(self, estimate: Estimate, image_rgb: NDArray[np.uint8] | None) -> None:
        """Add one frame at its stamp: the prior, the image and the result."""
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(estimate.stamp_ns, "ns"))
        for name in _OF_ONE_FRAME:
            self._log(name, self._rerun.Clear(recursive=name == _IN_IMAGE))
        self._log_verdict(estimate)
        self._log_vehicle(estimate)
        if image_rgb is not None:
            self._log_image(image_rgb)
        if estimate.alignment is not None:
            self._log_alignment(estimate.alignment.of_camera(0))
        self._log_figures(estimate)

    def _log_verdict(self, estimate: Estimate) -> None:
        kinds, status, reason = self._rerun, estimate.status, estimate.reason
        self._log("verdict/status", kinds.StateChange(state=str(status)))
        self._log("verdict/reason", kinds.StateChange(state=str(reason)))
        words = estimate.message if estimate.ok else f"{reason}: {estimate.message}"
        level = _LOG_LEVEL.get(status, "WARN")
        self._log("verdict/words", kinds.TextLog(f"{status}, {words}", level=level))

    def _log_vehicle(self, estimate: Estimate) -> None:
        """Draw pose, path and prior; without a pose the viewpoint follows the prior."""
        prior, kinds = estimate.prior, self._rerun
        if prior is not None:
            poses = [(prior.T_map_base, prior.covariance)]
            drawn = self._ellipsoids_of(poses, overlay.PRIOR_COLOR, "MajorWireframe")
            self._log("prior", drawn)
        T_map_base = estimate.T_map_base
        if T_map_base is None and prior is not None:
            T_map_base = prior.T_map_base
        if T_map_base is not None:
            xyz = T_map_base[:3, 3] - self._origin
            pose = kinds.Transform3D(translation=xyz, mat3x3=T_map_base[:3, :3])
            self._log("vehicle", pose)
        if estimate.ok:
            axes = kinds.Arrows3D(vectors=_AXES_M * np.eye(3), colors=np.eye(3), radii=0.06)
            self._log("vehicle/axes", axes)
        self._extend_trajectory(estimate)

    def _extend_trajectory(self, estimate: Estimate) -> None:
        """Draw the path so far, with the covariance at each pose; frames without one interrupt it.

        The path is split into pieces, because each frame writes its piece as a whole.
        """
        if estimate.T_map_base is None or estimate.covariance is None:
            self._strips.append([])
            return
        if len(self._ellipsoids) == _PIECE:
            self._piece, self._ellipsoids = self._piece + 1, []
            self._strips = [self._strips[-1][-1:]]
        self._strips[-1].append(estimate.T_map_base[:3, 3] - self._origin)
        self._ellipsoids.append((estimate.T_map_base, estimate.covariance))
        color, name = overlay.STATUS_COLORS[Status.OK], f"trajectory/{self._piece}"
        ways = [strip for strip in self._strips if len(strip) > 1]
        self._log(name, self._rerun.LineStrips3D(ways, colors=[color], radii=_WAY))
        self._log(f"{name}/sigma", self._ellipsoids_of(self._ellipsoids, color, "Solid"))

    def _ellipsoids_of(
        self, poses: Sequence[tuple[Matrix, Matrix]], color: drawing.Color, fill: str
    ) -> Any:
        """Return enlarged ellipsoids of position covariances; poses: T_map_base with covariance."""
        variances, directions = np.linalg.eigh([covariance[:3, :3] for _, covariance in poses])
        directions[:, :, 0] *= np.sign(np.linalg.det(directions))[:, None]
        return self._rerun.Ellipsoids3D(
            half_sizes=_SIGMAS * np.sqrt(np.maximum(variances, 0.0)),
            centers=[T_map_base[:3, 3] - self._origin for T_map_base, _ in poses],
            quaternions=Rotation.from_matrix(directions).as_quat(),
            colors=[color],
            line_radii=-0.7,
            fill_mode=fill,
        )

    def _log_image(self, image_rgb: NDArray[np.uint8]) -> None:
        jpeg = image_files.encode(image_rgb, jpeg_quality=_JPEG_QUALITY)
        picture = self._rerun.EncodedImage(contents=jpeg, media_type="image/jpeg")
        self._log("camera/image", picture)

    def _log_alignment(self, alignment: Alignment) -> None:
        """Draw points in the map and in the image, coloured by residual."""
        T_near_cam, kinds = alignment.T_map_cam.copy(), self._rerun
        T_near_cam[:3, 3] -= self._origin
        pose = kinds.Transform3D(translation=T_near_cam[:3, 3], mat3x3=T_near_cam[:3, :3])
        seen = np.isfinite(alignment.residuals)
        colors = drawing.colors(alignment.residuals[seen] / overlay.WORST_RESIDUAL).reshape(-1, 3)
        points = alignment.points_map[seen] - self._origin
        at_prior = alignment.pixels_prior[np.isfinite(alignment.pixels_prior).all(axis=-1)]
        in_image = kinds.Points2D(alignment.pixels[seen], colors=colors, radii=-3.0)
        before = kinds.Points2D(at_prior, colors=[overlay.PRIOR_COLOR], radii=-1.2)
        self._log("camera", pose)
        self._log(f"{_IN_IMAGE}/prior", before)
        self._log(f"{_IN_IMAGE}/pose", in_image)
        self._log("aligned", kinds.Points3D(points, colors=colors, radii=_POINT))

    def _log_figures(self, estimate: Estimate) -> None:
        figures, alignment = dict[str, float](), estimate.alignment
        if estimate.wrong_probability is not None:
            figures["evidence/wrong_probability"] = estimate.wrong_probability
        if alignment is not None:
            figures["evidence/cost"] = alignment.cost
            figures["evidence/inlier_share"] = alignment.inlier_share
            moved_m = se3.distance_m(alignment.T_map_cam_prior, alignment.T_map_cam)
            figures["prior_offset_m"] = moved_m
        if estimate.covariance is not None:
            figures["metres/sigma"] = float(np.sqrt(np.trace(estimate.covariance[:3, :3])))
        truth = self._truth.at(estimate.stamp_ns) if self._truth is not None else None
        if truth is not None and estimate.T_map_base is not None:
            figures["metres/error"] = se3.distance_m(estimate.T_map_base, truth)
        for name, value in figures.items():
            self._log(f"figures/{name}", self._rerun.Scalars(value))

    def _log(self, name: str, content: Any, static: bool = False) -> None:
        self._stream.log(name, content, static=static)
