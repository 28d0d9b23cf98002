"""The loss of a batch: the only place where the training objectives differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pixloc_ros import config as localizer
from pixloc_ros.alignment.policy import Policy
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.config import InfoNceConfig, TrainConfig
from pixloc_ros.training.feeding import DrawnBatch
from pixloc_ros.training.initial_poses import draw_initial_poses, poses_on_the_way
from pixloc_ros.training.losses import (
    MIN_COMMON_POINTS,
    info_nce,
    mean_error_px,
    pose_loss,
    relative_loss,
)
from pixloc_ros.training.pairs import PairBatch
from pixloc_ros.training.unrolled import level_systems, refine

LEVELS = ("coarse", "middle", "fine")
WIDTH_PX = 512  # image width that `starts.max_px` refers to


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch with its gradient, and its parts without."""

    total: Tensor
    parts: dict[str, Tensor]


def batch_loss(
    config: TrainConfig,
    architecture: Architecture,
    packed: Sequence[Tensor],
    damping: Tensor,
    drawn: DrawnBatch,
) -> Loss:
    """Compute the configured loss.

    packed, damping: outputs of PairNetwork for the reference images followed by the query images.
    """
    policy, batch = policy_of(config), drawn.batch
    systems = level_systems(packed, architecture, batch, policy)
    align = short_alignments if config.objective == "short_lm" else whole_alignment
    loss = align(config, systems, damping, drawn)
    weight = info_nce_weight(config.info_nce, drawn.number / config.steps)
    if weight == 0:
        return loss
    nce = config.info_nce
    contrast = torch.stack(
        [info_nce(s, batch, nce.temperature, nce.ignored_strides) for s in systems]
    ).mean()
    return Loss(loss.total + weight * contrast, {**loss.parts, "info_nce": contrast.detach()})


def policy_of(config: TrainConfig) -> Policy:
    """Return the rules of the alignment through which the network is trained."""
    policy = Policy.of(localizer.AlignmentConfig(policy=config.lm.policy))
    if config.lm.policy == "reference":
        sampling = replace(policy.sampling, border_px=config.lm.border_px)
        policy = replace(policy, sampling=sampling)
    return policy


def short_alignments(
    config: TrainConfig,
    systems: Sequence[LevelSystem],
    damping: Tensor,
    drawn: DrawnBatch,
) -> Loss:
    """Take a few steps per level from its own initial poses: all levels learn from the start."""
    batch = drawn.batch
    starts = [draw_initial_poses(batch, px, drawn.generator) for px in starts_px(config, batch)]
    ends = _aligned(config, systems, starts, damping)
    enough = batch.visible.sum(-1) >= MIN_COMMON_POINTS
    losses, parts = [], {}
    for level, start, end in zip(LEVELS, starts, ends, strict=True):
        before_px, after_px = mean_error_px(batch, start), mean_error_px(batch, end)
        loss = torch.where(enough, relative_loss(before_px, after_px), 0)
        losses.append(loss.sum() / enough.sum().clamp(min=1))
        parts[f"error_left_{level}"] = (after_px / before_px).detach().median()
    total = torch.stack(losses).mean()
    return Loss(total, {"alignment": total.detach(), **parts})


def whole_alignment(
    config: TrainConfig,
    systems: Sequence[LevelSystem],
    damping: Tensor,
    drawn: DrawnBatch,
) -> Loss:
    """Align from one initial pose through all levels, each from the result of the last (eq. 8)."""
    batch = drawn.batch
    if config.starts.at == "reference":
        start = Pose.identity((len(batch),), batch.points_reference)
    elif config.starts.at == "on_the_way":
        start = poses_on_the_way(batch, config.starts.on_the_way, drawn.generator)
    else:
        start = draw_initial_poses(batch, starts_px(config, batch)[0], drawn.generator)
    ends = _aligned(config, systems, [start], damping)
    strides = [system.level.stride for system in systems]
    loss = pose_loss(batch, start, ends, strides)
    total = loss.total.mean()
    errors = zip(LEVELS, loss.levels, strict=True)
    parts = {f"error_px_{level}": error.detach().median() for level, error in errors}
    return Loss(total, {"alignment": total.detach(), **parts})


def _aligned(
    config: TrainConfig, systems: Sequence[LevelSystem], starts: Sequence[Pose], damping: Tensor
) -> list[Pose]:
    """Return poses after each level, with the gradient that the configuration asks for."""
    policy, lm = policy_of(config), config.lm
    return refine(systems, starts, damping, lm.iterations, policy, unrolled=lm.unrolled)


def starts_px(config: TrainConfig, batch: PairBatch) -> list[float]:
    """Return the largest mean displacements per level, in pixels of these images."""
    return [px * batch.query_rgb.shape[-1] / WIDTH_PX for px in config.starts.max_px]


def info_nce_weight(config: InfoNceConfig, done: float) -> float:
    """Return the weight after a share `done` of the steps: it falls linearly, then stays."""
    share = min(1.0, done / config.until)
    return config.weight + share * (config.final_weight - config.weight)
