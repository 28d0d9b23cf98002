"""The losses that training minimizes: distances of projections, and confusion of features.

Distances are of points that both images observe, in pixels of the query image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.robust import Barron
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.pairs import PairBatch

MIN_COMMON_POINTS = 10  # pairs that share fewer points have no loss
CLAMP = 50.0  # largest loss of one level: nothing can be learned from hopeless cases
SUCCESS_STRIDES = 3.0  # a level counts if the loss of the level before is smaller, in strides
REPROJECTION = Barron(alpha=1, c=2)  # smooth L1 of the distance in pixels
MAX_RELATIVE = 2.0  # nothing is learned from alignments that end this much worse than they began
NOT_COMPARED = -1e4  # a logit; with -infinity, a pair without points would have no gradient


def mean_error_px(batch: PairBatch, T_query_reference: Pose) -> Tensor:
    """Return the mean distance (B,) of projections by these poses (B,) from the true ones."""
    return _mean(_squared_px(batch, T_query_reference).clamp(min=1e-12).sqrt(), batch.visible)


def _squared_px(batch: PairBatch, T_query_reference: Pose) -> Tensor:
    found, _ = batch.camera_query.project(T_query_reference.transform(batch.points_reference))
    return ((found - true_pixels(batch)[0]) ** 2).sum(-1)


def true_pixels(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Return where the query shows the points (B, N, 2), and whether they are visible (B, N)."""
    points_query = batch.T_query_reference.transform(batch.points_reference)
    pixels, seen = batch.camera_query.project(points_query)
    return pixels, seen & batch.visible


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B,) over the points (B, N) in the mask."""
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1).clamp(min=1)


def relative_loss(before_px: Tensor, after_px: Tensor) -> Tensor:
    """Return the loss (B,) of short alignments: remaining share of the error, and its logarithm."""
    share = (after_px / (before_px + 0.5)).clamp(max=MAX_RELATIVE)
    return share + 0.1 * torch.log(after_px + 0.05)


@dataclass(frozen=True, slots=True)
class PoseLoss:
    """Losses of B alignments through all levels."""

    total: Tensor  # (B,)
    levels: tuple[Tensor, ...]  # (B,) robust reprojection errors in pixels, coarse to fine
    start: Tensor  # (B,) the same before the first step


def pose_loss(
    batch: PairBatch, start: Pose, ends: Sequence[Pose], strides: Sequence[int]
) -> PoseLoss:
    """Return the mean over levels of the robust distance between projections (eq. 8).

    ends: poses T_query_ref (B,) after each level. A level counts only if the one before succeeded;
    otherwise there is nothing to learn from it.
    """
    _, seen_at_start = batch.camera_query.project(start.transform(batch.points_reference))
    common = true_pixels(batch)[1] & seen_at_start

    def error(pose: Pose) -> Tensor:
        return _mean(REPROJECTION.cost(_squared_px(batch, pose)) / 4, common)

    errors = tuple(error(pose).clamp(max=CLAMP) for pose in ends)
    counts = [torch.ones_like(errors[0])]
    counts += [(e < SUCCESS_STRIDES * s).to(e) for e, s in zip(errors, strides, strict=True)]
    total = sum((e * c for e, c in zip(errors, counts, strict=False)), torch.zeros_like(errors[0]))
    enough = common.sum(-1) >= MIN_COMMON_POINTS
    return PoseLoss(total / len(errors) * enough, errors, error(start))


def info_nce(
    system: LevelSystem, batch: PairBatch, temperature: float, ignored_strides: float
) -> Tensor:
    """Return the cross entropy () of finding each reference feature among all query features.

    Points nearer to the right one than `ignored_strides` are not negatives, because they look
    alike.
    """
    pixels, seen = system.camera.project(batch.T_query_reference.transform(system.points))
    seen = seen & system.present if system.present is not None else seen
    query, _ = system.sampling.unit_features(system.level, pixels)
    logits = system.reference @ query.mT / temperature  # (B, N, N)
    near = torch.cdist(pixels, pixels) < ignored_strides
    other = ~torch.eye(pixels.shape[1], dtype=torch.bool, device=pixels.device)
    logits = logits.masked_fill((near & other) | ~seen[:, None, :], NOT_COMPARED)
    right = torch.diagonal(F.log_softmax(logits, -1), dim1=-2, dim2=-1)
    return -torch.where(seen, right, 0).sum() / seen.sum().clamp(min=1)
