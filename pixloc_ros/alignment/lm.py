"""Levenberg-Marquardt on one level, for many poses at once (eq. 3-5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixloc_ros.alignment.system import LevelSystem, Linearization
from pixloc_ros.config import AlignmentConfig
from pixloc_ros.geometry.pose import Pose

DAMPING_FLOOR = 1e-6  # keeps the system regular where a direction has no gradient at all


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


def damped_step(
    hessian: Tensor, gradient: Tensor, damping: Tensor, config: AlignmentConfig
) -> Tensor:
    """Bounded steps (K, 6), zero where the system cannot be solved (eq. 4-5).

    hessian: (K, 6, 6); gradient: (K, 6); damping: (6,) relative to the Hessian's diagonal.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    damped = hessian + torch.diag_embed(damping * diagonal + DAMPING_FLOOR)
    factor, info = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    usable = (info == 0) & step.isfinite().all(-1)
    return bound(torch.where(usable[..., None], step, 0), config)


def bound(step: Tensor, config: AlignmentConfig) -> Tensor:
    """Shorten steps (K, 6) that are longer than a linear model can be trusted."""
    length = step[..., :3].norm(dim=-1) / config.max_step_m
    angle = step[..., 3:].norm(dim=-1) / math.radians(config.max_step_deg)
    return step / torch.maximum(length, angle).clamp(min=1)[..., None]


def minimize(
    system: LevelSystem,
    start: Pose,
    damping: Tensor,
    iterations: int,
    config: AlignmentConfig,
) -> LevelResult:
    """Run up to `iterations` from K starts; each problem stops by itself, the best iterate stays.

    Problems that see too few points or become non-finite are frozen and marked; nothing raises.
    """
    pose, at = start, system.linearize(start)
    failed = _failed(at, config)
    best = LevelResult(
        Pose(start.R.clone(), start.t.clone()),
        torch.where(failed, torch.inf, at.cost),
        torch.zeros_like(at.seen),
        torch.zeros_like(failed),
        failed,
    )
    active = torch.nonzero(~failed)[:, 0]
    pose, at = pose[active], at[active]
    for _ in range(iterations):
        if len(active) == 0:
            break
        pose = pose.retract(damped_step(at.hessian, at.gradient, damping, config))
        previous, at = at, system.linearize(pose)
        failed = _failed(at, config)
        converged = ~failed & (_motion_px(previous, at) < config.stop_px)
        _keep_best(best, active, pose, torch.where(failed, torch.inf, at.cost), converged)
        going = ~(failed | converged)
        if not going.all():
            active, pose, at = active[going], pose[going], at[going]
    return best


def _failed(at: Linearization, config: AlignmentConfig) -> Tensor:
    finite = at.hessian.isfinite().all(-1).all(-1) & at.gradient.isfinite().all(-1)
    return (at.seen < config.min_points) | ~finite


def _motion_px(before: Linearization, after: Linearization) -> Tensor:
    """Mean motion (K,) of the points that stayed in view, in pixels of the level."""
    both = ~(before.squared.isnan() | after.squared.isnan())
    motion = (after.pixels - before.pixels).norm(dim=-1)
    return torch.where(both, motion, 0).sum(-1) / both.sum(-1).clamp(min=1)


def _keep_best(
    best: LevelResult, active: Tensor, pose: Pose, cost: Tensor, converged: Tensor
) -> None:
    best.iterations[active] += 1
    best.converged[active] = converged
    better = cost < best.cost[active]
    rows = active[better]
    best.T_cam_local.R[rows], best.T_cam_local.t[rows] = pose.R[better], pose.t[better]
    best.cost[rows] = cost[better]
