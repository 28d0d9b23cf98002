"""Coarse to fine, from many starts to one pose with its quality (section 3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.levenberg_marquardt import LevelResult, System, minimize
from pixloc_ros.alignment.policy import Policy
from pixloc_ros.alignment.residuals import LevelSystem, Linearization
from pixloc_ros.alignment.rig import CameraObservation, RigSystem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment

if TYPE_CHECKING:
    from pixloc_ros.alignment.cuda.fused_aligner import FusedAligner


@dataclass(frozen=True, slots=True)
class Stage:
    """One call of the optimiser, and how many of its distinct results go on."""

    level: int
    iterations: int
    keep: int
    max_points: int | None = None


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the stages came to."""

    history: list[tuple[int, LevelResult]]  # level, and its best distinct results in order
    at: Linearization  # of the finest level, unbatched, at the best of the last results
    hypotheses: int  # started: all of them, or as many as memory had room for


@dataclass(frozen=True, slots=True)
class Aligner:
    """Aligns views of the map to images. damping: (L, 6) per level, coarse to fine (eq. 7).

    With `fused` the stages run in its kernels, for one camera of a model that those know.
    """

    damping: Tensor
    config: AlignmentConfig
    hypotheses: HypothesesConfig
    fused: FusedAligner | None = None

    def align(self, sights: Sequence[CameraObservation], starts: Pose) -> Alignment:
        """Refine starts (K,) of the lead's T_cam_local, the prior first, and report the best one.

        sights: of all cameras, the lead first, whose view's origin is that of the starts. Never
        raises for a hopeless problem: its cost is inf and `converged` is False.
        """
        refined = self._refine(list(self._stages(len(starts.t))), sights, starts)
        return self._report(refined, sights, starts)

    def scout(self, sights: Sequence[CameraObservation], starts: Pose) -> tuple[Pose, float]:
        """The best of the starts after a quick look, and the cost of the first of them."""
        _, result = self._refine([self._scouting()], sights, starts).history[0]
        return result.T_cam_local, float(result.cost[0])

    def winner(self, found: Sequence[Alignment]) -> tuple[int, Alignment]:
        """Which of several alignments of one frame is the best, and it with its runner-up."""
        index = min(range(len(found)), key=lambda i: found[i].cost)
        best = found[index]
        distinct = [a for a in found if not self._same(a.T_map_cam, best.T_map_cam)]
        costs = [best.runner_up_cost, *(alignment.cost for alignment in distinct)]
        return index, replace(best, runner_up_cost=min(costs))

    def _refine(
        self, stages: list[Stage], sights: Sequence[CameraObservation], starts: Pose
    ) -> Refinement:
        if self.fused is not None and len(sights) == 1 and self.fused.supports(sights[0].camera):
            systems = [self.system(sights[0], stage) for stage in stages]
            return self.fused.refine(stages, systems, starts)
        sights = [replace(s, camera=s.camera.to(s.view.points.device)) for s in sights]
        poses, history = starts, []
        for stage in stages:
            system = self._joint_system(sights, stage)
            damping = self.damping[stage.level]
            result = minimize(system, poses, damping, stage.iterations, self.config)
            result = self._best_distinct(result, stage.keep)
            poses = result.T_cam_local
            history.append((stage.level, result))
            if result.failed.all() and Policy.of(self.config).failure_is_final:
                break
        return Refinement(history, system.linearize(poses[:1])[0], len(starts.t))

    def _stages(self, count: int) -> Iterator[Stage]:
        h = self.hypotheses
        if count > 1:
            yield self._scouting()
        limits = Policy.of(self.config).iterations
        keep = (h.keep_coarse, h.keep_middle, h.keep_fine)
        for level, (iterations, kept) in enumerate(zip(limits, keep, strict=True)):
            yield Stage(level, iterations, kept)

    def _scouting(self) -> Stage:
        h = self.hypotheses
        return Stage(0, h.screening_iterations, h.keep_screened, h.screening_points)

    def _joint_system(self, sights: Sequence[CameraObservation], stage: Stage) -> System:
        if len(sights) == 1:
            return self.system(sights[0], stage)
        origin, poses = sights[0].view.origin, np.stack([sight.T_cam_lead for sight in sights])
        if stage.max_points is not None:  # for all cameras together
            stage = replace(stage, max_points=max(1, stage.max_points // len(sights)))
        systems = [self.system(sight, stage, origin) for sight in sights]
        return RigSystem(systems, Pose.from_matrix(torch.from_numpy(poses)).to(systems[0].points))

    def system(
        self, sight: CameraObservation, stage: Stage, origin: NDArray[np.float64] | None = None
    ) -> LevelSystem:
        """The least-squares problem of one camera in one stage, at its view's origin or another."""
        policy, view = Policy.of(self.config), sight.view
        level = sight.pyramid.levels[stage.level]
        some = slice(None, None, max(1, len(view) // (stage.max_points or len(view))))
        points = view.points if origin is None else sight.points(origin)
        return LevelSystem(
            level,
            sight.pyramid.camera(sight.camera, level),
            points[some],
            view.features[stage.level][some],
            view.confidences[stage.level][some],
            policy.robust,
            policy.sampling,
        )

    def _best_distinct(self, result: LevelResult, keep: int) -> LevelResult:
        """The best `keep` results in order of cost, without repetitions of the same pose."""
        order = torch.argsort(result.cost)
        T = se3.inverse(result.T_cam_local.matrix().double().cpu().numpy())
        chosen: list[int] = []
        for i in order.tolist():
            if len(chosen) == keep:
                break
            if not any(self._same(T[i], T[j]) for j in chosen):
                chosen.append(i)
        return result[torch.tensor(chosen, device=order.device)]

    def _same(self, T_0: NDArray[np.float64], T_1: NDArray[np.float64]) -> bool:
        near = se3.distance_m(T_0, T_1) < self.hypotheses.same_pose_m
        return near and se3.angle_deg(T_0, T_1) < self.hypotheses.same_pose_deg

    def _report(
        self, refined: Refinement, sights: Sequence[CameraObservation], starts: Pose
    ) -> Alignment:
        final, at = refined.history[-1][1], refined.at
        inliers = at.squared < self.config.inlier_max_squared_residual
        counts = [len(sight.view) for sight in sights]
        hessian = at.hessian.double().cpu().numpy()
        origin = sights[0].view.origin
        best, prior = final.T_cam_local[0].to("cpu"), starts[0].to("cpu")
        T_map_lead, T_map_lead_prior = to_map(best, origin), to_map(prior, origin)
        return Alignment(
            T_map_cam=T_map_lead,
            T_map_cam_prior=T_map_lead_prior,
            hessian=hessian,
            covariance_cam=sandwich_covariance(at),
            cost=float(final.cost[0]),
            cost_per_level=tuple(float(result.cost[0]) for _, result in refined.history),
            inlier_share=_share(inliers),
            iterations=tuple(int(result.iterations[0]) for _, result in refined.history),
            converged=bool(final.converged[0]),
            condition=scaled_condition(hessian),
            hypotheses=refined.hypotheses,
            hypotheses_dropped=len(starts.t) - refined.hypotheses,
            runner_up_cost=float(final.cost[1]) if len(final.cost) > 1 else float("inf"),
            points_map=np.concatenate([_points_map(sight) for sight in sights]),
            pixels_prior=image_pixels(sights, T_map_lead_prior),
            pixels=image_pixels(sights, T_map_lead),
            residuals=at.squared.sqrt().float().cpu().numpy(),
            points_per_camera=tuple(counts),
            inlier_share_per_camera=tuple(_share(own) for own in inliers.split(counts)),
        )


def _share(true: Tensor) -> float:
    return float(true.double().mean())


def continued(
    first: Alignment,
    second: Alignment,
    sights: Sequence[CameraObservation],
    T_map_cam_prior: NDArray[np.float64],
) -> Alignment:
    """The second alignment, begun where the first ended, as the end of the whole way.

    sights and T_map_cam_prior: of the second, whose lead may be another camera. The runner-up
    keeps its distance in cost from the winner.
    """
    return replace(
        second,
        T_map_cam_prior=T_map_cam_prior,
        pixels_prior=image_pixels(sights, T_map_cam_prior),
        runner_up_cost=second.cost + first.runner_up_cost - first.cost,
        iterations=first.iterations + second.iterations,
        cost_per_level=first.cost_per_level + second.cost_per_level,
    )


def to_map(T_cam_local: Pose, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """T_map_cam (4, 4) in float64 from an unbatched pose relative to the local origin."""
    T = T_cam_local.matrix().double().cpu().numpy()
    U, _, Vt = np.linalg.svd(T[:3, :3])  # float32 steps let the rotation drift
    T_map_cam = se3.inverse(se3.make(U @ Vt, T[:3, 3]))
    T_map_cam[:3, 3] += origin
    return T_map_cam


def image_pixels(
    sights: Sequence[CameraObservation], T_map_lead: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Projections (N, 2) of all points, each in its camera's image; NaN behind the camera."""
    return np.concatenate([_image_pixels(sight, T_map_lead) for sight in sights])


def _points_map(sight: CameraObservation) -> NDArray[np.float64]:
    return sight.view.points.cpu().double().numpy() + sight.view.origin


def _image_pixels(sight: CameraObservation, T_map_lead: NDArray[np.float64]) -> NDArray[np.float32]:
    T_cam_map = torch.from_numpy(sight.T_cam_lead @ se3.inverse(T_map_lead))
    points_cam = Pose.from_matrix(T_cam_map).transform(torch.from_numpy(_points_map(sight)))
    pixels, _ = sight.camera.to("cpu", torch.float64).project(points_cam)
    return torch.where(points_cam[..., 2:] > 0, pixels, torch.nan).float().numpy()


def sandwich_covariance(at: Linearization) -> NDArray[np.float64]:
    """Covariance (6, 6) of the update, H^-1 (sum g g') H^-1, from the points' gradients g.

    The sandwich estimator (Huber 1967) takes the scale of the residuals from the points
    themselves and stays honest where their noise is not that of the model; NaN if H is singular.
    """
    H = at.hessian.double().cpu().numpy()
    g = at.point_gradients.double().cpu().numpy()
    try:
        H_inverse = np.linalg.inv(H)
    except np.linalg.LinAlgError:
        return np.full((6, 6), np.nan)
    return H_inverse @ (g.T @ g) @ H_inverse


def scaled_condition(hessian: NDArray[np.float64]) -> float:
    """Condition number after scaling the diagonal to one, so that units do not matter."""
    diagonal = np.sqrt(np.diag(hessian))
    if not np.isfinite(hessian).all() or (diagonal <= 0).any():
        return float("inf")
    return float(np.linalg.cond(hessian / np.outer(diagonal, diagonal)))
