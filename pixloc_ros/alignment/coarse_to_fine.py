"""Coarse to fine, from many initial poses to one with its quality (section 3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.alignment.correlation import Correlation
from pixloc_ros.alignment.levenberg_marquardt import System, damped_step, minimize
from pixloc_ros.alignment.policy import LevelResult, Policy
from pixloc_ros.alignment.residuals import LevelSystem, Linearization
from pixloc_ros.alignment.result import Refinement, describe
from pixloc_ros.alignment.rig import CameraObservation, RigSystem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig
from pixloc_ros.features.sampling import BILINEAR
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment, Matrix

COARSE, MIDDLE, FINE = 0, 1, 2  # levels


@dataclass(frozen=True, slots=True)
class Stage:
    """One call of the optimiser, and how many of its distinct results go on."""

    level: int
    iterations: int
    keep: int | None  # None: all, in their order, equal ones as well
    max_points: int | None = None
    correlated: bool = False  # many poses on a coarse level: see correlation.py
    min_agreement_share: float = 0.0  # of the best result's 1 - cost: others are given up
    further: bool = False  # on the fine level: points are compared with further keyframes, too

    def every(self, count: int) -> int:
        """Return n: of so many points, every nth takes part."""
        return max(1, count // (self.max_points or count))


Problem = tuple[Sequence[CameraObservation], Pose]  # with initial poses (K,) of the lead


class FusedStages(Protocol):
    """Kernels that run all stages on the device: see pixloc_ros/alignment/cuda/README.md."""

    def supports(self, policy: Policy) -> bool:
        """Tell whether they know the policy."""

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

    With `fused` the stages run in its kernels, for one camera.
    """

    damping: Tensor
    config: AlignmentConfig
    hypotheses: HypothesesConfig
    fused: FusedStages | None = None

    def align(
        self,
        observations: Sequence[CameraObservation],
        initial_poses: Pose,
        screened: bool = False,
    ) -> Alignment:
        """Refine initial poses (K,) of the lead's T_cam_local, and report the best one.

        observations: of all cameras, the lead first, whose view's origin is that of the poses. Of
        these the first is the prior. Those that are screened are not screened again. Never raises
        for a hopeless problem: its cost is inf and `converged` is False.
        """
        stages = list(self._stages(len(initial_poses.t)))
        if screened and stages[0] == self._screening():
            del stages[0]
        refined = self.refine(stages, observations, initial_poses)
        return describe(refined, observations, initial_poses, self.config)

    def screen(
        self, observations: Sequence[CameraObservation], initial_poses: Pose
    ) -> tuple[Pose, float, int]:
        """Run the screening: its best poses (K,), the cost of the first, and how many
        initial poses had no room in memory."""
        refined = self.refine([self._screening()], observations, initial_poses)
        _, found = refined.history[0]
        return found.T_cam_local, float(found.cost[0]), len(initial_poses.t) - refined.hypotheses

    def screen_each(self, problems: Sequence[Problem], level: int) -> list[tuple[Pose, float]]:
        """Screen problems of one image with one initial pose each, on the coarse or middle level.

        Those of one camera are one batch, unless kernels make each of them fast.
        """
        stage = replace(self._screening(), level=level, keep=1, correlated=False)
        if self.fused is not None or any(len(observations) > 1 for observations, _ in problems):
            found = [self.refine([stage], *problem).history[0][1] for problem in problems]
            return [(ends.T_cam_local, float(ends.cost[0])) for ends in found]
        initial = Pose.cat([poses for _, poses in problems])
        system = LevelSystem.stack(
            [self.system(observations[0], stage).on_its_device() for observations, _ in problems]
        )
        ends = minimize(system, initial, self.damping[level], stage.iterations, self.policy)
        return [(ends.T_cam_local[i : i + 1], float(ends.cost[i])) for i in range(len(problems))]

    def refine(
        self, stages: Sequence[Stage], observations: Sequence[CameraObservation], poses: Pose
    ) -> Refinement:
        """Run the stages one after the other: each begins where the one before ended."""
        if self.fused is not None and self._fits_kernels(stages, observations):
            systems = [self.system(observations[0], stage) for stage in stages]
            return self.fused.refine(stages, systems, poses, self.policy, self.hypotheses)
        count, history = len(poses.t), []
        for stage in stages:
            system, damping = self.joint_system(observations, stage), self.damping[stage.level]
            ends = minimize(system, poses, damping, stage.iterations, self.policy)
            ends = self._best_distinct(ends, stage)
            history.append((stage.level, ends))
            poses = ends.T_cam_local
            if ends.failed.all() and self.policy.failure_is_final:
                break
        return Refinement(history, system.linearize(poses[:1])[0], count)

    def step_on_fine_level(
        self, observations: Sequence[CameraObservation], found: Pose
    ) -> tuple[Pose, Linearization]:
        """Take one step from a pose (1,) of the lead that was found, unless the cost would rise.

        Also return the problem linearised at the pose found (by kernels: after the step),
        unbatched.
        """
        stage = Stage(FINE, 1, keep=1, further=True)
        if self._fits_kernels([stage], observations):
            refined = self.refine([stage], observations, found)
            return refined.history[0][1].T_cam_local, refined.at
        system = self.joint_system(observations, stage)
        at = system.linearize(found)
        twist = damped_step(at.hessian, at.gradient, self.damping[FINE], self.policy)
        moved = found.retract(twist)
        return moved.where(system.cost(moved) < at.cost, found), at[0]

    @property
    def policy(self) -> Policy:
        """The rules that the configuration names."""
        return Policy.of(self.config)

    @property
    def first_level(self) -> int:
        """The level that alignment begins on."""
        return MIDDLE if self.config.first_level == "middle" else COARSE

    def system(
        self, observation: CameraObservation, stage: Stage, origin: Matrix | None = None
    ) -> LevelSystem:
        """The least-squares problem of one camera in one stage, at its view's origin or another."""
        policy, view = self.policy, observation.view
        level = observation.pyramid.levels[stage.level]
        some = slice(None, None, stage.every(len(view)))
        points = view.points if origin is None else observation.points(origin)
        points, references = points[some], view.features[stage.level][some]
        confidences = view.confidences[stage.level][some]
        if stage.further and view.further is not None:
            points = torch.cat([points, points[view.further.of]])
            references = torch.cat([references, view.further.features])
            confidences = torch.cat([confidences, view.further.confidences])
        by_cells = stage.correlated and self.fused is None and policy.sampling is BILINEAR
        return LevelSystem(
            level,
            observation.pyramid.camera(observation.camera, level),
            points,
            references,
            confidences,
            policy.robust,
            policy.sampling,
            correlation=Correlation.of(level, references) if by_cells else None,
        )

    def joint_system(self, observations: Sequence[CameraObservation], stage: Stage) -> System:
        """The least-squares problem of all cameras in one stage, in the lead's pose."""
        if len(observations) == 1:
            return self.system(observations[0], stage).on_its_device()
        origin = observations[0].view.origin
        if stage.max_points is not None:  # for all cameras together
            stage = replace(stage, max_points=max(1, stage.max_points // len(observations)))
        systems = [self.system(each, stage, origin).on_its_device() for each in observations]
        T_cam_lead = torch.from_numpy(np.stack([each.T_cam_lead for each in observations]))
        return RigSystem(systems, Pose.from_matrix(T_cam_lead).to(systems[0].points))

    def _fits_kernels(
        self, stages: Sequence[Stage], observations: Sequence[CameraObservation]
    ) -> bool:
        if len(observations) > 1 or any(stage.keep is None for stage in stages):
            return False
        return self.fused is not None and self.fused.supports(self.policy)

    def _stages(self, count: int) -> Iterator[Stage]:
        if count > 1:
            yield self._screening()
        h = self.hypotheses
        coarse, middle, fine = self.policy.iterations
        share = h.min_agreement_share
        if self.first_level == COARSE:
            yield Stage(COARSE, coarse, h.keep_coarse, None, count > 1, share)
        yield Stage(MIDDLE, middle, h.keep_middle, min_agreement_share=share)
        yield Stage(FINE, fine, h.keep_fine)

    def _screening(self) -> Stage:
        h, level = self.hypotheses, self.first_level
        share, correlated = h.min_agreement_share, level == COARSE
        steps, points = h.screening_iterations, h.screening_points
        return Stage(level, steps, h.keep_screened, points, correlated, share)

    def _best_distinct(self, ends: LevelResult, stage: Stage) -> LevelResult:
        """The best results in order of cost, as many as the stage keeps, each pose once."""
        keep = stage.keep
        if keep is None:
            return ends
        order = torch.argsort(ends.cost)
        if stage.min_agreement_share > 0:
            best = ends.cost[order[0]]
            highest = best + (1 - stage.min_agreement_share) * (1 - best).clamp(min=0)
            order = order[ends.cost[order] <= highest]
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
