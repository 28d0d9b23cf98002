"""Levenberg-Marquardt on one level, for many poses at once (eq. 3-5).

The only loop: the localizer, training and research run it with policies of their own, and
cuda/README.md says which kernel stands for which function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixloc_ros.alignment.policy import LevelResult, Policy, StepTaken
from pixloc_ros.alignment.residuals import Linearization
from pixloc_ros.geometry.pose import Pose


class System(Protocol):
    """A least-squares problem in one pose, of one camera or of a rig, or one for each pose."""

    def linearize(self, T_cam_local: Pose, /) -> Linearization:
        """Normal equations at K poses."""

    def cost(self, T_cam_local: Pose, /) -> Tensor:
        """Mean robust cost (K,) at K poses."""

    def __getitem__(self, index: Tensor, /) -> System:
        """The system for some of the poses."""


def minimize(
    system: System, initial: Pose, damping: Tensor, iterations: int, policy: Policy
) -> LevelResult:
    """Take up to `iterations` steps from K initial poses; each problem ends by itself.

    Problems with too few points in view, or not finite, end and are marked; nothing raises. No
    tensor is written in place, so the result can be differentiated down to the images.
    """
    at = system.linearize(initial)
    kept = _without_a_step(initial, at, policy)
    problems = torch.arange(len(kept.cost), device=kept.cost.device)
    running = _Running(system, problems, initial, initial, at, kept)
    going, ended = ~kept.failed, list[_Ended]()
    for iteration in range(iterations):
        further = torch.nonzero(going)[:, 0]
        if len(further) == 0:
            break
        if len(further) < len(going):
            done = torch.nonzero(~going)[:, 0]
            ended.append((running.problems[done], running.kept[done]))
            running = running[further]
        running, going = _step(running, damping, iteration, iteration + 1 == iterations, policy)
    return _in_order([*ended, (running.problems, running.kept)])


def damped_step(hessian: Tensor, gradient: Tensor, damping: Tensor, policy: Policy) -> Tensor:
    """Solve for bounded steps (K, 6), zero where the system cannot be solved (eq. 4-5, 7).

    hessian: (K, 6, 6); gradient: (K, 6); damping: (6,) relative to the Hessian's diagonal, learned
    and constant. No step is taken back where the cost rose: the policy keeps the best iterate.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    damped = hessian + torch.diag_embed(policy.floor(damping * diagonal))
    factor, info = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    usable = (info == 0) & step.isfinite().all(-1)
    return bound(torch.where(usable[..., None], step, 0), policy)


def bound(step: Tensor, policy: Policy) -> Tensor:
    """Shorten steps (K, 6) that are longer than a linear model can be trusted."""
    length = step[..., :3].norm(dim=-1) / policy.max_step_m
    angle = step[..., 3:].norm(dim=-1) / math.radians(policy.max_step_deg)
    return step / torch.maximum(length, angle).clamp(min=1)[..., None]


def motion_px(before: Linearization, after: Linearization) -> Tensor:
    """Mean motion (K,) of the points that stayed in view, in pixels of the level."""
    both = ~(before.squared.isnan() | after.squared.isnan())
    motion = (after.pixels - before.pixels).norm(dim=-1)
    return torch.where(both, motion, 0).sum(-1) / both.sum(-1).clamp(min=1)


_Ended = tuple[Tensor, LevelResult]  # which problems (K,) they are, and what they keep


@dataclass(frozen=True, slots=True)
class _Running:
    """Problems (K,) that have not ended: which they are, and where they stand."""

    system: System
    problems: Tensor  # (K,) which of the first ones
    initial: Pose
    pose: Pose
    at: Linearization
    kept: LevelResult

    def __getitem__(self, index: Tensor) -> _Running:
        return _Running(*(getattr(self, name)[index] for name in self.__slots__))


def _step(
    running: _Running, damping: Tensor, iteration: int, is_last: bool, policy: Policy
) -> tuple[_Running, Tensor]:
    """The problems one step further, and which of them (K,) go on."""
    system, before = running.system, running.at
    twist = damped_step(before.hessian, before.gradient, damping, policy)
    pose = running.pose.retract(twist)
    at = system.linearize(pose)
    failed = _failed(at, policy)
    step = StepTaken(
        iteration=iteration,
        is_last=is_last,
        twist=twist,
        gradient=before.gradient,
        motion_px=motion_px(before, at),
        T_cam_local=pose,
        T_cam_local_initial=running.initial,
        cost=at.cost,
        failed=failed,
    )
    stopped = policy.stop(step)
    kept = policy.keep(running.kept, step, stopped)
    further = _Running(system, running.problems, running.initial, pose, at, kept)
    return further, ~(failed | stopped)


def _without_a_step(initial: Pose, at: Linearization, policy: Policy) -> LevelResult:
    failed = _failed(at, policy)
    cost = torch.where(failed, torch.inf, at.cost)
    none = torch.zeros_like(at.in_view)
    return LevelResult(initial, cost, none, torch.zeros_like(failed), failed)


def _failed(at: Linearization, policy: Policy) -> Tensor:
    finite = at.hessian.isfinite().all(-1).all(-1) & at.gradient.isfinite().all(-1)
    return (at.in_view < policy.min_points) | ~finite


def _in_order(parts: Sequence[_Ended]) -> LevelResult:
    """What all problems keep, in the order of their initial poses."""
    problems, kept = zip(*parts, strict=True)
    if len(parts) == 1:
        return kept[0]
    return LevelResult.cat(kept)[torch.argsort(torch.cat(problems))]
