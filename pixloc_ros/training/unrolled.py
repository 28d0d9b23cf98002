"""Levenberg-Marquardt unrolled through all its steps, for a batch of pairs at once.

The loop is `minimize` of pixloc_ros/alignment: what is trained is what runs. Every operation is
differentiable, down to the images and the damping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pixloc_ros.alignment.levenberg_marquardt import minimize
from pixloc_ros.alignment.policy import KeepLast, NeverStop, Policy
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.pyramid import FeaturePyramid, level_of
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.pairs import PairBatch


def level_systems(
    packed: Sequence[Tensor], architecture: Architecture, batch: PairBatch, policy: Policy
) -> list[LevelSystem]:
    """Build the least-squares problems of B pairs at each level, coarse to fine.

    packed: maps (2 B, C + 1, H, W) per level, of the reference images followed by the query images.
    """
    reference, query = (
        _pyramid([maps[side] for maps in packed], architecture, batch)
        for side in (slice(None, len(batch)), slice(len(batch), None))
    )
    systems = []
    for level_ref, level_query in zip(reference.levels, query.levels, strict=True):
        camera_ref = reference.camera(batch.camera_reference, level_ref)
        pixels, in_image = camera_ref.project(batch.points_reference)
        features, confidence = policy.sampling.unit_features(level_ref, pixels)
        systems.append(
            LevelSystem(
                level_query,
                query.camera(batch.camera_query, level_query),
                batch.points_reference,
                features,
                confidence,
                policy.robust,
                policy.sampling,
                present=batch.visible & in_image & policy.sampling.inside(level_ref, pixels),
            )
        )
    return systems


def _pyramid(
    packed: Sequence[Tensor], architecture: Architecture, batch: PairBatch
) -> FeaturePyramid:
    """Make a pyramid of the maps (B, C + 1, H, W) of one side of all pairs."""
    height, width = batch.query_rgb.shape[2:]
    size, with_norms = packed[0].new_tensor([width, height]), architecture.as_published
    levels = (
        level_of(maps, stride, size, with_norms)
        for maps, stride in zip(packed, architecture.strides, strict=True)
    )
    return FeaturePyramid(tuple(levels), (1.0, 1.0))


def refine(
    systems: Sequence[LevelSystem],
    initial: Sequence[Pose],
    damping: Tensor,
    iterations: int,
    policy: Policy,
    stops: bool = False,
    unrolled: bool = True,
) -> list[Pose]:
    """Align a batch, coarse to fine; return poses T_query_ref (B,) after each level.

    initial: (B,) of the coarsest levels. A level without one begins where the level before ended;
    no gradient passes between them.
    damping: (L, 6).
    stops: as in validation, a pair ends where the policy ends it. Otherwise all steps are taken and
    the last pose is kept.
    unrolled: if false, the poses are the same, but have the gradient of only the last step of their
    level.
    """
    policy = replace(policy, keep=KeepLast(), stop=policy.stop if stops else NeverStop())
    ends: list[Pose] = []
    for number, (system, of_level) in enumerate(zip(systems, damping, strict=True)):
        begin = initial[number] if number < len(initial) else ends[-1].detach()
        left = iterations
        if not unrolled:
            with torch.no_grad():
                begin = minimize(system, begin, of_level, iterations - 1, policy).T_cam_local
            left = 1
        ends.append(minimize(system, begin, of_level, left, policy).T_cam_local)
    return ends
