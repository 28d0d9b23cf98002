"""Focal length and readout time of a camera, from images that are localized on a map.

A bundle adjustment on features (Lindenberger et al., ICCV 2021) with the map held fixed. Each image
has its own pose, and all share the two parameters, each of which adds a column to the Jacobian.
Poses are eliminated (Schur complement), and the normal equations of all images are added up. The
sigmas come from the scatter between images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import FINE, MIDDLE, Stage
from pixloc_ros.alignment.problems import ImageFeatures, ViewSelector, local_poses
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.result import to_map
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.geometry.rolling_shutter import RollingShutter
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.recorded_drive import RecordedOdometry
from pixloc_ros.types import Estimate, Frame

# The order of all that is estimated: true focal length per configured one, minus one; and seconds.
PARAMETERS = ("focal length", "readout")
PRIOR_SIGMA = np.array([0.05, 0.05])
MAX_SIGMA = np.array([0.002, 0.003])  # beyond, a parameter counts as not determined
DERIVATIVE_STEP = np.array([1e-3, 1e-3])
SURE_SIGMAS = 3.0  # a parameter that differs by less stays as configured
MIN_FRAMES, MAX_FRAMES = 12, 60  # evenly along the drive
MAX_ROUNDS = 10  # of Gauss-Newton
SETTLED_SIGMAS = 0.25  # a smaller step is the last one
VELOCITY_S = 0.2  # over which the velocity of a camera is averaged
CORRELATED_FRAMES = 4  # in a row, with correlated errors: they share keyframes
HELD_SHARE = 0.25  # of the frames, at the end: they judge what the others give
STAGES = (Stage(MIDDLE, 10, 1), Stage(FINE, 20, 1))


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedFrame:
    """A frame, where it is on the map, and how its camera moves."""

    frame: Frame  # with the camera as it is calibrated: all rows at once
    T_map_base: Matrix  # (4, 4)
    twist_cam: Matrix  # (6,) metres and radians per second, in the axes of the camera


@dataclass(frozen=True, slots=True, eq=False)
class ParameterEstimate:
    """The result, in the order of PARAMETERS."""

    asked: NDArray[np.bool_]  # (2,)
    configured: Matrix  # (2,)
    values: Matrix  # (2,) as configured where nothing is determined
    sigmas: Matrix  # (2,) infinite for what was not asked for, or is not determined
    frames: int
    # Mean robust cost of the points of held images, from 0 (all agree) to 1.
    held_cost_before: float
    held_cost_after: float

    @property
    def determined(self) -> NDArray[np.bool_]:
        """(2,) Whether each parameter was asked for and has a small sigma."""
        return np.isfinite(self.sigmas)

    @property
    def off(self) -> NDArray[np.bool_]:
        """(2,) Whether each parameter differs significantly from the configured one."""
        return np.abs(self.values - self.configured) > SURE_SIGMAS * self.sigmas

    @property
    def focal_factor(self) -> float:
        """Factor to the configured focal length; 1 without a significant difference."""
        return 1.0 + float(self.values[0]) if self.off[0] else 1.0

    @property
    def readout_s(self) -> float:
        """Readout time; as configured without a significant difference."""
        return max(0.0, float((self.values if self.off[1] else self.configured)[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Contribution:
    """Gradient (2,) and Hessian (2, 2) of one image, its pose eliminated."""

    gradient: Matrix
    hessian: Matrix
    cost: float
    T_map_base: Matrix  # (4, 4) aligned


def localized_frames(
    answers: Iterable[tuple[Frame, Estimate]], odometry: RecordedOdometry
) -> list[LocalizedFrame]:
    """Select the frames that have a pose, and odometry around their stamp."""
    found: list[LocalizedFrame] = []
    half_ns = VELOCITY_S / 2 * 1e9
    for frame, estimate in answers:
        around_ns = frame.stamp_ns + np.array([-half_ns, half_ns]).astype(np.int64)
        epochs = odometry.epoch_at(around_ns)
        if estimate.T_map_base is None or not odometry.covers(around_ns).all() or np.ptp(epochs):
            continue
        twist = _twist_cam(odometry, frame)
        still = replace(frame, camera=replace(frame.camera, shutter=None))
        found.append(LocalizedFrame(still, estimate.T_map_base, twist))
    return found


def with_parameters(found: LocalizedFrame, values: Matrix, stamp_share: float) -> Camera:
    """Return the camera of a frame with other parameters (2,)."""
    camera = found.frame.camera
    shutter = RollingShutter.of_twist(found.twist_cam * values[1], camera.height, stamp_share)
    return replace(camera, focal=camera.focal * (1.0 + float(values[0])), shutter=shutter)


def estimate_parameters(
    localizer: Localizer,
    frames: Sequence[LocalizedFrame],
    asked: NDArray[np.bool_],
    progress: Progress = silent,
) -> ParameterEstimate:
    """Estimate the parameters that are asked for (2,); the others stay as configured.

    Raises DataError for too few frames.
    """
    fit = _Fit(localizer, progress)
    start = np.array([0.0, localizer.config.camera.readout_s])
    values, step, sigmas = start, np.zeros(2), np.full(2, np.inf)
    told: list[_Contribution] = []
    for number in range(MAX_ROUNDS):
        if len(frames) < MIN_FRAMES:
            raise DataError(
                f"{len(frames)} localized images have odometry; focal length and readout need at "
                f"least {MIN_FRAMES}: take a longer drive"
            )
        frames, told = fit.linearized(frames, values, f"camera's parameters, round {number + 1}")
        step, sigmas = _solved(told, asked)
        values = np.where(np.isfinite(sigmas), values + step, start)
        if (np.abs(step) <= SETTLED_SIGMAS * sigmas).all():
            break
    held = min(round((1.0 - HELD_SHARE) * len(told)), len(told) - 1)
    by_first_part = values - step + _solved(told[:held], np.isfinite(sigmas))[0]
    before, after = (
        float(np.mean([each.cost for each in fit.linearized(frames[held:], camera, "judging")[1]]))
        for camera in (start, by_first_part)
    )
    return ParameterEstimate(
        asked=asked,
        configured=start,
        values=values,
        sigmas=sigmas,
        frames=len(told),
        held_cost_before=before,
        held_cost_after=after,
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Aligns frames on a map with a camera of given parameters."""

    localizer: Localizer
    progress: Progress

    def linearized(
        self, frames: Sequence[LocalizedFrame], values: Matrix, work: str
    ) -> tuple[list[LocalizedFrame], list[_Contribution]]:
        """Align frames and linearize at their poses; frames with too few points are left out."""
        moved, told = list[LocalizedFrame](), list[_Contribution]()
        for each in self.progress(frames, work, len(frames)):
            contribution = self._of_frame(each, values)
            if contribution is not None:
                told.append(contribution)
                moved.append(replace(each, T_map_base=contribution.T_map_base))
        return moved, told

    @torch.inference_mode()
    def _of_frame(self, found: LocalizedFrame, values: Matrix) -> _Contribution | None:
        localizer, config = self.localizer, self.localizer.config
        share = config.camera.stamp_share
        frame = replace(found.frame, camera=with_parameters(found, values, share))
        image = ImageFeatures(frame, localizer.features.extract(frame.image_rgb))
        view = ViewSelector(localizer.map, config, [image]).view(frame, found.T_map_base)
        if len(view) < config.view.min_points:
            return None
        observation = CameraObservation(image.pyramid, frame.camera.to(view.points), view)
        initial = local_poses((found.T_map_base @ frame.T_base_cam)[None], view)
        aligner = localizer.aligner(config)
        # First the best pose for these parameters, then the joint system at that pose.
        end = aligner.refine(STAGES, [observation], initial).history[-1][1].T_cam_local
        system = aligner.system(observation, STAGES[-1])

        def pixels(other: Matrix) -> Tensor:
            camera = with_parameters(found, other, share)
            return _pixels(system, image.pyramid.camera(camera, system.level), end)

        steps = np.diag(DERIVATIVE_STEP)
        slopes = [(pixels(values + h) - pixels(values - h)) / (2 * h.sum()) for h in steps]
        at = system.linearize(end, torch.stack(slopes, -1).to(end.t))[0]
        gradient, hessian = _without_pose(
            at.gradient.double().cpu().numpy(), at.hessian.double().cpu().numpy()
        )
        T_map_base = to_map(end[0], view.origin) @ se3.inverse(frame.T_base_cam)
        return _Contribution(gradient, hessian, float(at.cost), T_map_base)


def _twist_cam(odometry: RecordedOdometry, frame: Frame) -> Matrix:
    """Velocity and turn rate (6,) of a camera at the stamp of its image, in its own axes."""
    (velocity,), (turn,) = odometry.velocity_base(np.array([frame.stamp_ns]), VELOCITY_S)
    R_cam_base = frame.T_base_cam[:3, :3].T
    of_camera = velocity + np.cross(turn, frame.T_base_cam[:3, 3])
    return np.concatenate([R_cam_base @ of_camera, R_cam_base @ turn])


def _pixels(system: LevelSystem, camera: Camera, T_cam_local: Pose) -> Tensor:
    """Project a system's points with another camera: (K, N, 2) in float64."""
    points = T_cam_local.transform(system.points).double()
    return camera.to(points).project(points)[0]


def _without_pose(gradient: Matrix, hessian: Matrix) -> tuple[Matrix, Matrix]:
    """Eliminate the pose: gradient (P,) and Hessian (P, P) of the parameters alone."""
    by_pose = np.linalg.solve(hessian[:6, :6], np.column_stack([gradient[:6], hessian[:6, 6:]]))
    across = hessian[6:, :6]
    return gradient[6:] - across @ by_pose[:, 0], hessian[6:, 6:] - across @ by_pose[:, 1:]


def _solved(told: Sequence[_Contribution], asked: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Solve for a step (2,) and its sigmas (2,), infinite for what is not determined."""
    free = asked.copy()
    while free.any():
        step, sigmas = _solved_for(told, free)
        excess = np.where(free, sigmas / MAX_SIGMA, 0.0)
        if excess.max() <= 1.0:
            return step, sigmas
        free[np.argmax(excess)] = False
    return np.zeros(2), np.full(2, np.inf)


def _solved_for(told: Sequence[_Contribution], free: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    gradients = np.stack([each.gradient[free] for each in told])
    hessians = np.stack([each.hessian[np.ix_(free, free)] for each in told])
    prior, total = np.diag(PRIOR_SIGMA[free] ** -2.0), hessians.sum(0)
    step, sigmas = np.zeros(2), np.full(2, np.inf)
    step[free] = -np.linalg.pinv(total) @ gradients.sum(0)
    rest = gradients + hessians @ step[free]  # (N, P) at the end of the step
    explained = np.einsum("ni,nij,nj->", rest, np.linalg.pinv(hessians), rest)
    noise = max(float(explained) / rest.size, np.finfo(float).tiny)
    inverse = np.linalg.inv(total / noise + prior)
    spread = inverse @ _spread(rest / noise) @ inverse
    sigmas[free] = np.sqrt(np.maximum(np.diag(inverse), np.diag(spread)))
    return step, sigmas


def _spread(gradients: Matrix) -> Matrix:
    """Covariance (P, P) of the sum of gradients (N, P), neighbours being correlated
    (Newey and West, Econometrica 1987)."""
    spread: Matrix = gradients.T @ gradients
    for lag in range(1, min(CORRELATED_FRAMES, len(gradients))):
        both = gradients[lag:].T @ gradients[:-lag]
        spread += (1.0 - lag / CORRELATED_FRAMES) * (both + both.T)
    return spread
