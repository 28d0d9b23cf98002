"""Levenberg-Marquardt on one level, for many poses at once (eq. 3-5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixloc_ros.alignment.policy import Policy, StepTaken
from pixloc_ros.alignment.residuals import Linearization
from pixloc_ros.config import AlignmentConfig
from pixloc_ros.geometry.pose import Pose


class System(Protocol):
    """A least-squares problem in one pose: of one camera or of a rig."""

    def linearize(self, T_cam_local: Pose, /) -> Linearization:
        """Normal equations at K poses."""


@dataclass(frozen=True, slots=True)
class LevelResult:
    """The best iterate of each of K problems."""

    T_cam_local: Pose  # (K,)
    cost: Tensor  # (K,) mean robust cost there
    iterations: Tensor  # (K,)
    converged: Tensor  # (K,)
    failed: Tensor  # (K,) too few points in view, or not finite

    def __getitem__(self, index: Tensor) -> LevelResult:
        return LevelResult(*(getattr(self, name)[index] for name in self.__slots__))


def damped_step(hessian: Tensor, gradient: Tensor, damping: Tensor, policy: Policy) -> Tensor:
    """Bounded steps (K, 6), zero where the system cannot be solved (eq. 4-5).

    hessian: (K, 6, 6); gradient: (K, 6); damping: (6,) relative to the Hessian's diagonal.
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


def minimize(
    system: System,
    start: Pose,
    damping: Tensor,
    iterations: int,
    config: AlignmentConfig,
) -> LevelResult:
    """Run up to `iterations` from K starts; each problem stops by itself.

    The policy that the configuration names decides when, and which iterate stays. Problems that
    see too few points or become non-finite are frozen and marked; nothing raises.
    """
    policy = Policy.of(config)
    pose, at = start, system.linearize(start)
    result = _before_the_first_step(start, at, policy)
    active = torch.nonzero(~result.failed)[:, 0]
    pose, at = pose[active], at[active]
    for number in range(iterations):
        if len(active) == 0:
            break
        pose, at, stopped = _step(system, pose, at, damping, number, policy)
        failed = _failed(at, policy)
        if policy.keeps_best:
            _keep_best(result, active, pose, at.cost, failed, stopped)
        else:
            # The reference never looks at the last pose of a level: it cannot fail there.
            lost = failed & ~stopped & (number + 1 < iterations)
            _keep_last(result, active, pose, at.cost, lost, stopped, start)
        going = ~(failed | stopped)
        if not going.all():
            active, pose, at = active[going], pose[going], at[going]
    return result


def _step(
    system: System,
    pose: Pose,
    at: Linearization,
    damping: Tensor,
    number: int,
    policy: Policy,
) -> tuple[Pose, Linearization, Tensor]:
    """The next poses (K,), the problem there, and which of them are to be the last."""
    twist = damped_step(at.hessian, at.gradient, damping, policy)
    moved = pose.retract(twist)
    after = system.linearize(moved)
    taken = StepTaken(number, twist, at.gradient, motion_px(at, after))
    return moved, after, policy.stop(taken)


def _before_the_first_step(start: Pose, at: Linearization, policy: Policy) -> LevelResult:
    failed = _failed(at, policy)
    return LevelResult(
        Pose(start.R.clone(), start.t.clone()),
        torch.where(failed, torch.inf, at.cost),
        torch.zeros_like(at.seen),
        torch.zeros_like(failed),
        failed,
    )


def _failed(at: Linearization, policy: Policy) -> Tensor:
    finite = at.hessian.isfinite().all(-1).all(-1) & at.gradient.isfinite().all(-1)
    return (at.seen < policy.min_points) | ~finite


def motion_px(before: Linearization, after: Linearization) -> Tensor:
    """Mean motion (K,) of the points that stayed in view, in pixels of the level."""
    both = ~(before.squared.isnan() | after.squared.isnan())
    motion = (after.pixels - before.pixels).norm(dim=-1)
    return torch.where(both, motion, 0).sum(-1) / both.sum(-1).clamp(min=1)


def _keep_best(
    result: LevelResult,
    active: Tensor,
    pose: Pose,
    cost: Tensor,
    failed: Tensor,
    stopped: Tensor,
) -> None:
    result.iterations[active] += 1
    result.converged[active] = stopped & ~failed
    better = ~failed & (cost < result.cost[active])
    rows = active[better]
    result.T_cam_local.R[rows], result.T_cam_local.t[rows] = pose.R[better], pose.t[better]
    result.cost[rows] = cost[better]


def _keep_last(
    result: LevelResult,
    active: Tensor,
    pose: Pose,
    cost: Tensor,
    lost: Tensor,
    stopped: Tensor,
    start: Pose,
) -> None:
    """Keep this iterate, but go back to the start where the problem lost its points."""
    result.iterations[active] += 1
    result.converged[active] = stopped
    result.failed[active] = lost
    result.cost[active] = torch.where(lost, torch.inf, cost)
    kept = start[active].where(lost, pose)
    result.T_cam_local.R[active], result.T_cam_local.t[active] = kept.R, kept.t
