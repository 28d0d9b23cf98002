"""Coarse to fine, from many initial poses to one with its quality (section 3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.alignment.correlation import Correlation
from pixloc_ros.alignment.levenberg_marquardt import System, minimize
from pixloc_ros.alignment.policy import LevelResult, Policy
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.result import Refinement, describe
from pixloc_ros.alignment.rig import CameraObservation, RigSystem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig
from pixloc_ros.features.sampling import BILINEAR
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment, Matrix


@dataclass(frozen=True, slots=True)
class Stage:
    """One call of the optimiser, and how many of its distinct results go on."""

    level: int
    iterations: int
    keep: int | None  # None: all, in their order, equal ones as well
    max_points: int | None = None
    correlated: bool = False  # many poses on a coarse level: see correlation.py


class FusedStages(Protocol):
    """Kernels that run all stages on the device: see pixloc_ros/alignment/cuda/README.md."""

    def supports(self, camera: Camera, policy: Policy) -> bool:
        """Tell whether they know the camera's model and the policy."""

    def refine(
        self,
        stages: Sequence[Stage],
        systems: Sequence[LevelSystem],
        initial: Pose,
        policy: Policy,
        hypotheses: HypothesesConfig,
    ) -> Refinement:
        """Run the stages, each on its system."""


@dataclass(frozen=True, slots=True)
class Aligner:
    """Aligns views of the map to images. damping: (L, 6) per level, coarse to fine (eq. 7).

    With `fused` the stages run in its kernels, for one camera of a model that those know.
    """

    damping: Tensor
    config: AlignmentConfig
    hypotheses: HypothesesConfig
    fused: FusedStages | None = None

    def align(self, observations: Sequence[CameraObservation], initial_poses: Pose) -> Alignment:
        """Refine initial poses (K,) of the lead's T_cam_local, and report the best one.

        observations: of all cameras, the lead first, whose view's origin is that of the poses. Of
        these the first is the prior. Never raises for a hopeless problem: its cost is inf and
        `converged` is False.
        """
        refined = self.refine(list(self._stages(len(initial_poses.t))), observations, initial_poses)
        return describe(refined, observations, initial_poses, self.config)

    def screen(
        self, observations: Sequence[CameraObservation], initial_poses: Pose
    ) -> tuple[Pose, float]:
        """Run the coarse screening: its best poses (K,), and the cost of the first of them."""
        _, found = self.refine([self._screening()], observations, initial_poses).history[0]
        return found.T_cam_local, float(found.cost[0])

    def refine(
        self, stages: Sequence[Stage], observations: Sequence[CameraObservation], poses: Pose
    ) -> Refinement:
        """Run the stages one after the other: each begins where the one before ended."""
        if self.fused is not None and self._fits_kernels(stages, observations):
            systems = [self.system(observations[0], stage) for stage in stages]
            return self.fused.refine(stages, systems, poses, self.policy, self.hypotheses)
        device, count, history = poses.t.device, len(poses.t), []
        observations = [replace(each, camera=each.camera.to(device)) for each in observations]
        for stage in stages:
            system, damping = self.joint_system(observations, stage), self.damping[stage.level]
            ends = minimize(system, poses, damping, stage.iterations, self.policy)
            ends = self._best_distinct(ends, stage.keep)
            history.append((stage.level, ends))
            poses = ends.T_cam_local
            if ends.failed.all() and self.policy.failure_is_final:
                break
        return Refinement(history, system.linearize(poses[:1])[0], count)

    @property
    def policy(self) -> Policy:
        """The rules that the configuration names."""
        return Policy.of(self.config)

    def system(
        self, observation: CameraObservation, stage: Stage, origin: Matrix | None = None
    ) -> LevelSystem:
        """The least-squares problem of one camera in one stage, at its view's origin or another."""
        policy, view = self.policy, observation.view
        level = observation.pyramid.levels[stage.level]
        some = slice(None, None, max(1, len(view) // (stage.max_points or len(view))))
        points = view.points if origin is None else observation.points(origin)
        references = view.features[stage.level][some]
        by_cells = stage.correlated and self.fused is None and policy.sampling is BILINEAR
        return LevelSystem(
            level,
            observation.pyramid.camera(observation.camera, level),
            points[some],
            references,
            view.confidences[stage.level][some],
            policy.robust,
            policy.sampling,
            correlation=Correlation.of(level, references) if by_cells else None,
        )

    def joint_system(self, observations: Sequence[CameraObservation], stage: Stage) -> System:
        """The least-squares problem of all cameras in one stage, in the lead's pose."""
        if len(observations) == 1:
            return self.system(observations[0], stage)
        origin = observations[0].view.origin
        if stage.max_points is not None:  # for all cameras together
            stage = replace(stage, max_points=max(1, stage.max_points // len(observations)))
        systems = [self.system(observation, stage, origin) for observation in observations]
        T_cam_lead = torch.from_numpy(np.stack([each.T_cam_lead for each in observations]))
        return RigSystem(systems, Pose.from_matrix(T_cam_lead).to(systems[0].points))

    def _fits_kernels(
        self, stages: Sequence[Stage], observations: Sequence[CameraObservation]
    ) -> bool:
        if len(observations) > 1 or any(stage.keep is None for stage in stages):
            return False
        return self.fused is not None and self.fused.supports(observations[0].camera, self.policy)

    def _stages(self, count: int) -> Iterator[Stage]:
        if count > 1:
            yield self._screening()
        h = self.hypotheses
        keep = (h.keep_coarse, h.keep_middle, h.keep_fine)
        for level, (iterations, kept) in enumerate(zip(self.policy.iterations, keep, strict=True)):
            yield Stage(level, iterations, kept, correlated=level == 0 and count > 1)

    def _screening(self) -> Stage:
        h = self.hypotheses
        return Stage(0, h.screening_iterations, h.keep_screened, h.screening_points, True)

    def _best_distinct(self, ends: LevelResult, keep: int | None) -> LevelResult:
        """The best `keep` results in order of cost, without repetitions of the same pose."""
        if keep is None:
            return ends
        order = torch.argsort(ends.cost)
        T = se3.inverse(ends.T_cam_local.matrix().double().cpu().numpy())
        chosen: list[int] = []
        for i in order.tolist():
            if len(chosen) == keep:
                break
            if not any(same_pose(T[i], T[j], self.hypotheses) for j in chosen):
                chosen.append(i)
        return ends[torch.tensor(chosen, device=order.device)]


def same_pose(T_0: Matrix, T_1: Matrix, limits: HypothesesConfig) -> bool:
    """Whether two poses (4, 4) are so near each other that they count as one."""
    near = se3.distance_m(T_0, T_1) < limits.same_pose_m
    return near and se3.angle_deg(T_0, T_1) < limits.same_pose_deg
