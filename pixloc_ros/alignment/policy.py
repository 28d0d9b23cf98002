"""Where the reference (PixLoc as published) and this package choose differently, in one object.

docs/guide/reference_mode.md has the table that says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixloc_ros.alignment.robust import RobustCost
from pixloc_ros.alignment.sampling import BILINEAR, Sampling, central, separable
from pixloc_ros.config import AlignmentConfig

DAMPING_FLOOR = 1e-6  # keeps the system regular where a direction has no gradient at all


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step that K problems have just taken, for the rule that ends them."""

    number: int  # 0 for the first
    twist: Tensor  # (K, 6)
    gradient: Tensor  # (K, 6) at the pose before
    motion_px: Tensor  # (K,) mean motion of the points, in pixels of the level


class StopRule(Protocol):
    """Which of K problems (K,) are at their end after a step."""

    def __call__(self, taken: StepTaken) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class StopByMotion:
    """Ends where a step hardly moves the points: the same in any scene and at any scale."""

    motion_px: float

    def __call__(self, taken: StepTaken) -> Tensor:
        return taken.motion_px < self.motion_px


@dataclass(frozen=True, slots=True)
class StopByStep:
    """Ends, at every n-th step only, where the step is short or the gradient small."""

    every: int
    distance: float  # in units of the map
    angle_deg: float
    gradient: float

    def __call__(self, taken: StepTaken) -> Tensor:
        if taken.number % self.every:
            return torch.zeros_like(taken.motion_px, dtype=torch.bool)
        near = taken.twist[:, :3].norm(dim=-1) < self.distance
        aligned = taken.twist[:, 3:].norm(dim=-1) < math.radians(self.angle_deg)
        return (near & aligned) | (taken.gradient.norm(dim=-1) < self.gradient)


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
    keeps_best: bool  # of all iterates of a level; otherwise the last one
    failure_is_final: bool  # a problem that loses its points starts no finer level
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
            stop=StopByMotion(config.stop_px),
            keeps_best=True,
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
    keeps_best=False,
    failure_is_final=True,
    iterations=(100, 100, 100),
    min_points=10,
)
