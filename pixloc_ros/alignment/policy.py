"""The rules of one alignment in one object: this package's, and those of PixLoc as published.

docs/guide/reference_mode.md has the table that says why they differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixloc_ros.alignment.robust import RobustCost
from pixloc_ros.config import AlignmentConfig
from pixloc_ros.features.sampling import BILINEAR, Sampling, central, separable
from pixloc_ros.geometry.pose import Pose

DAMPING_FLOOR = 1e-6  # keeps the system regular where a direction has no gradient at all


@dataclass(frozen=True, slots=True)
class LevelResult:
    """What K problems keep of their iterates."""

    T_cam_local: Pose  # (K,)
    cost: Tensor  # (K,) mean robust cost there
    iterations: Tensor  # (K,)
    converged: Tensor  # (K,)
    failed: Tensor  # (K,) too few points in view, or not finite

    def __getitem__(self, index: Tensor) -> LevelResult:
        return LevelResult(*(getattr(self, name)[index] for name in self.__slots__))

    @classmethod
    def cat(cls, parts: Sequence[LevelResult]) -> LevelResult:
        """Put the problems of several results one after the other."""
        pose, *rest = ([getattr(part, name) for part in parts] for name in cls.__slots__)
        return cls(Pose.cat(pose), *map(torch.cat, rest))


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step that K problems have just taken, for the rules that judge it."""

    iteration: int  # 0 for the first
    is_last: bool  # no further one is allowed
    twist: Tensor  # (K, 6)
    gradient: Tensor  # (K, 6) at the pose before
    motion_px: Tensor  # (K,) mean motion of the points, in pixels of the level
    T_cam_local: Pose  # (K,) the pose after
    T_cam_local_initial: Pose  # (K,) where the problems began
    cost: Tensor  # (K,) at the pose after
    failed: Tensor  # (K,) too few points in view there, or not finite


class StopRule(Protocol):
    """Decides which of K problems (K,) end after a step."""

    def __call__(self, step: StepTaken) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class StopByMotion:
    """Ends where a step hardly moves the points: the same in any scene and at any scale."""

    motion_px: float

    def __call__(self, step: StepTaken) -> Tensor:
        return step.motion_px < self.motion_px


@dataclass(frozen=True, slots=True)
class StopByStep:
    """Ends, at every n-th step only, where the step is short or the gradient small."""

    every: int
    distance: float  # in units of the map
    angle_deg: float
    gradient: float

    def __call__(self, step: StepTaken) -> Tensor:
        if step.iteration % self.every:
            return torch.zeros_like(step.failed)
        near = step.twist[:, :3].norm(dim=-1) < self.distance
        aligned = step.twist[:, 3:].norm(dim=-1) < math.radians(self.angle_deg)
        return (near & aligned) | (step.gradient.norm(dim=-1) < self.gradient)


@dataclass(frozen=True, slots=True)
class NeverStop:
    """Takes all steps, as in training."""

    def __call__(self, step: StepTaken) -> Tensor:
        return torch.zeros_like(step.failed)


class KeepRule(Protocol):
    """Decides what K problems keep after a step: a new object, for differentiation."""

    def __call__(self, kept: LevelResult, step: StepTaken, stopped: Tensor) -> LevelResult: ...


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keeps the iterate of the least cost."""

    def __call__(self, kept: LevelResult, step: StepTaken, stopped: Tensor) -> LevelResult:
        better = ~step.failed & (step.cost < kept.cost)
        return LevelResult(
            step.T_cam_local.where(better, kept.T_cam_local),
            torch.where(better, step.cost, kept.cost),
            kept.iterations + 1,
            converged=stopped & ~step.failed,
            failed=kept.failed,
        )


@dataclass(frozen=True, slots=True)
class KeepLast:
    """Keeps the last iterate, as training needs it."""

    def __call__(self, kept: LevelResult, step: StepTaken, stopped: Tensor) -> LevelResult:
        return LevelResult(step.T_cam_local, step.cost, kept.iterations + 1, stopped, step.failed)


@dataclass(frozen=True, slots=True)
class KeepLastOrInitial:
    """Keeps the last iterate, but the initial pose where the problem lost its points.

    The reference never evaluates the last pose of a level: it cannot fail there.
    """

    def __call__(self, kept: LevelResult, step: StepTaken, stopped: Tensor) -> LevelResult:
        lost = step.failed & ~stopped
        if step.is_last:
            lost = torch.zeros_like(lost)
        return LevelResult(
            step.T_cam_local_initial.where(lost, step.T_cam_local),
            torch.where(lost, torch.inf, step.cost),
            kept.iterations + 1,
            converged=stopped,
            failed=lost,
        )


def add_floor(relative: Tensor) -> Tensor:
    """Damping (..., 6) with the floor added: smooth in the learned values."""
    return relative + DAMPING_FLOOR


def at_least_floor(relative: Tensor) -> Tensor:
    """Damping (..., 6) with the floor as its minimum."""
    return relative.clamp(min=DAMPING_FLOOR)


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to align."""

    sampling: Sampling
    robust: RobustCost
    floor: Callable[[Tensor], Tensor]  # applied to damping times the Hessian's diagonal
    stop: StopRule
    keep: KeepRule
    failure_is_final: bool  # a problem that loses its points goes to no finer level
    iterations: tuple[int, int, int]  # at most, coarse to fine
    min_points: int
    max_step_m: float = math.inf
    max_step_deg: float = math.inf

    @classmethod
    def of(cls, config: AlignmentConfig) -> Policy:
        """The policy that the configuration names; the numbers in it are those of ours."""
        if config.policy == "reference":
            return REFERENCE
        return cls(
            sampling=BILINEAR,
            robust=RobustCost(config.robust_scale),
            floor=add_floor,
            stop=StopByMotion(config.stop_motion_px),
            keep=KeepBest(),
            failure_is_final=False,
            iterations=config.iterations,
            min_points=config.min_points,
            max_step_m=config.max_step_m,
            max_step_deg=config.max_step_deg,
        )


REFERENCE = Policy(
    sampling=Sampling(separable(central), taps=4, border_px=2),
    robust=RobustCost(2 * 0.1**2),  # Barron's cost with alpha 0 and c 0.1
    floor=at_least_floor,
    stop=StopByStep(every=10, distance=5e-3, angle_deg=0.05, gradient=1e-4),
    keep=KeepLastOrInitial(),
    failure_is_final=True,
    iterations=(100, 100, 100),
    min_points=10,
)
