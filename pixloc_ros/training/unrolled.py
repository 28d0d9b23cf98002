"""Levenberg-Marquardt unrolled through all its steps, for a batch of pairs at once.

The steps are those of pixloc_ros/alignment: what is trained is what runs. Every operation can be
differentiated, down to the images and the damping.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixloc_ros.alignment.levenberg_marquardt import damped_step, motion_px
from pixloc_ros.alignment.policy import Policy, StepTaken
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.pyramid import FeaturePyramid, level_of
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.pairs import PairBatch


def level_systems(
    packed: Sequence[Tensor], architecture: Architecture, batch: PairBatch, policy: Policy
) -> list[LevelSystem]:
    """The least-squares problems of B pairs at each level, coarse to fine.

    packed: maps (2 B, C + 1, H, W) per level, of the reference images and then of the query's.
    """
    reference, query = (
        _pyramid([maps[side] for maps in packed], architecture, batch)
        for side in (slice(None, len(batch)), slice(len(batch), None))
    )
    systems = []
    for level_ref, level_query in zip(reference.levels, query.levels, strict=True):
        camera_ref = reference.camera(batch.camera_reference, level_ref)
        pixels, seen = camera_ref.project(batch.points_reference)
        features, confidence = level_ref.sample(pixels)
        systems.append(
            LevelSystem(
                level_query,
                query.camera(batch.camera_query, level_query),
                batch.points_reference,
                features,
                confidence,
                policy.robust,
                policy.sampling,
                present=batch.visible & seen & policy.sampling.inside(level_ref, pixels),
            )
        )
    return systems


def _pyramid(
    packed: Sequence[Tensor], architecture: Architecture, batch: PairBatch
) -> FeaturePyramid:
    """The maps (B, C + 1, H, W) of one side of all pairs."""
    height, width = batch.query_rgb.shape[2:]
    size, with_norms = packed[0].new_tensor([width, height]), architecture.as_published
    levels = (
        level_of(maps, stride, size, with_norms)
        for maps, stride in zip(packed, architecture.strides, strict=True)
    )
    return FeaturePyramid(tuple(levels), (1.0, 1.0))


def refine(
    systems: Sequence[LevelSystem],
    starts: Sequence[Pose],
    damping: Tensor,
    iterations: int,
    policy: Policy,
    stops: bool = False,
) -> list[Pose]:
    """Poses T_query_ref (B,) after each level, coarse to fine.

    starts: (B,) of the coarsest levels. A level without one begins where the level before ended;
    the gradient ends there. damping: (L, 6). stops: see `unroll`.
    """
    ends: list[Pose] = []
    for number, (system, of_level) in enumerate(zip(systems, damping, strict=True)):
        start = starts[number] if number < len(starts) else ends[-1].detach()
        ends.append(unroll(system, start, of_level, iterations, policy, stops))
    return ends


def unroll(
    system: LevelSystem,
    pose: Pose,
    damping: Tensor,
    iterations: int,
    policy: Policy,
    stops: bool = False,
) -> Pose:
    """The last of `iterations` iterates from (K,) poses.

    A pose that sees too few points stays where it is from then on. With `stops` so does one that
    has come to where the policy ends, as in validation.
    """
    ended = torch.zeros_like(pose.t[:, 0], dtype=torch.bool)
    at = system.linearize(pose)
    for number in range(iterations):
        ended = ended | (at.seen < policy.min_points)
        gradient = torch.where(ended[:, None], 0, at.gradient)
        hessian = torch.where(ended[:, None, None], torch.eye(6).to(at.hessian), at.hessian)
        twist = damped_step(hessian, gradient, damping, policy)
        pose = pose.retract(twist)
        previous, at = at, system.linearize(pose)
        if stops:
            ended = ended | policy.stop(StepTaken(number, twist, gradient, motion_px(previous, at)))
            if ended.all():
                break
    return pose
