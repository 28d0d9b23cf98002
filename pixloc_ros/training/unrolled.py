"""Levenberg-Marquardt unrolled through all its steps, and the loss on the poses (eq. 8).

The steps are those of pixloc_ros/alignment: what is trained is what runs. Every operation can be
differentiated, down to the images and the damping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixloc_ros.alignment.lm import damped_step, motion_px
from pixloc_ros.alignment.policy import Policy, Taken
from pixloc_ros.alignment.robust import Barron
from pixloc_ros.alignment.system import LevelSystem
from pixloc_ros.features.pyramid import FeatureLevel, FeaturePyramid, level_of
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose

MIN_COMMON_POINTS = 10  # pairs that share fewer have no loss
CLAMP = 50.0  # of the loss of one level: lost causes teach nothing
SUCCESS_STRIDES = 3.0  # a level counts where the one before ended below this loss, in strides
REPROJECTION = Barron(alpha=1, c=2)  # smooth L1 of the distance in pixels


@dataclass(frozen=True, slots=True)
class View:
    """One image of a pair: its pyramid, and its camera in pixels of the network's image."""

    pyramid: FeaturePyramid
    camera: Camera


def pyramids(
    packed: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int], with_norms: bool
) -> list[FeaturePyramid]:
    """One pyramid per image of a batch, from maps (B, C + 1, H, W) per level, coarse to fine.

    size: width and height of the images. with_norms: `Architecture.as_published`.
    """
    image_size = packed[0].new_tensor(size)
    return [
        FeaturePyramid(
            tuple(
                level_of(maps[i : i + 1], stride, image_size, with_norms)
                for maps, stride in zip(packed, strides, strict=True)
            ),
            (1.0, 1.0),
        )
        for i in range(len(packed[0]))
    ]


def refine(
    reference: View,
    query: View,
    points_ref: Tensor,
    T_query_ref: Pose,
    damping: Tensor,
    iterations: int,
    policy: Policy,
    stops: bool = False,
) -> list[Pose]:
    """Poses T_query_ref (1,) after each level, coarse to fine.

    points_ref: (N, 3) in the frame of the reference camera. T_query_ref: (1,) to start from.
    damping: (L, 6). The gradient of a level's pose ends where the level begins.
    """
    poses: list[Pose] = []
    levels = zip(reference.pyramid.levels, query.pyramid.levels, damping, strict=True)
    for level_ref, level_query, level_damping in levels:
        features, confidence, visible = sample_points(reference, level_ref, points_ref, policy)
        system = LevelSystem(
            level_query,
            query.pyramid.camera(query.camera, level_query),
            points_ref[visible],
            features,
            confidence,
            policy.robust,
            policy.sampling,
        )
        start = poses[-1] if poses else T_query_ref
        start = Pose(start.R.detach(), start.t.detach())
        poses.append(unroll(system, start, level_damping, iterations, policy, stops))
    return poses


def sample_points(
    view: View, level: FeatureLevel, points_cam: Tensor, policy: Policy
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (M, C) and confidences (M,) of the points that are visible (N,) in a level."""
    pixels, visible = view.pyramid.camera(view.camera, level).project(points_cam)
    visible = visible & policy.sampling.inside(level, pixels)
    return *level.sample(pixels[visible]), visible


def unroll(
    system: LevelSystem,
    pose: Pose,
    damping: Tensor,
    iterations: int,
    policy: Policy,
    stops: bool = False,
) -> Pose:
    """The last of `iterations` iterates from (K,) poses.

    A pose that sees too few points stays where it is from then on. With `stops` all end together
    where the policy would stop each of them, as in validation.
    """
    lost = torch.zeros_like(pose.t[:, 0], dtype=torch.bool)
    at = system.linearize(pose)
    for number in range(iterations):
        lost = lost | (at.seen < policy.min_points)
        gradient = torch.where(lost[:, None], 0, at.gradient)
        hessian = torch.where(lost[:, None, None], torch.eye(6).to(at.hessian), at.hessian)
        twist = damped_step(hessian, gradient, damping, policy)
        pose = pose.retract(twist)
        previous, at = at, system.linearize(pose)
        taken = Taken(number, twist, gradient, motion_px(previous, at))
        if stops and policy.stop(taken).all():
            break
    return pose


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one pair."""

    total: Tensor  # (), with gradient
    levels: tuple[Tensor, ...]  # (), robust reprojection errors in pixels, coarse to fine
    start: Tensor  # () the same before the first step


def pose_loss(
    T_query_ref: Sequence[Pose],
    start: Pose,
    truth: Pose,
    camera: Camera,
    points_ref: Tensor,
    strides: Sequence[int],
) -> Loss:
    """Mean over levels of the robust distance between projections (eq. 8).

    T_query_ref: (1,) per level, as `refine` returns. A level counts only where the one before
    it succeeded: further down there is nothing to learn from.
    """
    pixels_true, visible = camera.project(truth.transform(points_ref))
    _, visible_at_start = camera.project(start.transform(points_ref))
    common = visible & visible_at_start

    def error(pose: Pose) -> Tensor:
        pixels, _ = camera.project(pose.transform(points_ref))
        squared = ((pixels - pixels_true) ** 2).sum(-1)
        robust = REPROJECTION.cost(squared) / 4
        return torch.where(common, robust, 0).sum() / common.sum().clamp(min=1)

    errors = tuple(error(pose).clamp(max=CLAMP) for pose in T_query_ref)
    counts = [errors[0].new_ones(())]
    counts += [(e < SUCCESS_STRIDES * s).to(e) for e, s in zip(errors, strides, strict=True)]
    total = sum((e * c for e, c in zip(errors, counts, strict=False)), errors[0].new_zeros(()))
    enough = common.sum() >= MIN_COMMON_POINTS
    return Loss(total / len(errors) * enough, errors, error(start))
