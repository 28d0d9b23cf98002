"""Draw random initial poses for an alignment, by how far they displace the image."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.losses import mean_error_px
from pixloc_ros.training.pairs import PairBatch

SEARCHES = 6  # proportional steps towards the drawn displacement
MAX_FACTOR = 3.0  # of each step, because displacement is not linear in the twist


@torch.no_grad()
def draw_initial_poses(batch: PairBatch, max_px: float, generator: torch.Generator) -> Pose:
    """Return T_query_ref (B,), off by a random twist; mean displacement uniform in (0, max_px].

    generator: on the CPU, so that draws are equal on all devices.
    """
    target_px = max_px * (1 - torch.rand(len(batch), generator=generator))
    direction = torch.randn(len(batch), 6, generator=generator)
    return displaced(batch, direction.to(batch.visible.device), target_px.to(batch.visible.device))


def poses_on_the_way(
    batch: PairBatch, shares: tuple[float, float], generator: torch.Generator
) -> Pose:
    """Return T_query_ref (B,), a share of the way from the reference's pose to the true one.

    The share is uniform between two bounds; rotation vector and translation are scaled by it.

    generator: as in draw_initial_poses.
    """
    low, high = shares
    share = (low + (high - low) * torch.rand(len(batch), 1, generator=generator)).double()
    truth = batch.T_query_reference
    turn = Rotation.from_matrix(truth.R.detach().double().cpu().numpy()).as_rotvec()
    R = Rotation.from_rotvec(turn * share.numpy()).as_matrix()
    return Pose(torch.from_numpy(R).to(truth.R), truth.t * share.to(truth.t))


def displaced(batch: PairBatch, direction: Tensor, target_px: Tensor) -> Pose:
    """Move the true poses along twists (B, 6) until the mean displacement is target_px (B,).

    Translations are in units of the median depth, so both parts displace the image alike.
    """
    depth = batch.T_query_reference.transform(batch.points_reference)[..., 2]
    median = torch.where(batch.visible, depth, torch.nan).nanmedian(-1).values.nan_to_num(1)
    unit = torch.cat([direction[:, :3] * median[:, None], direction[:, 3:]], -1)
    scale = 1e-3 * torch.ones_like(target_px)
    for _ in range(SEARCHES):
        pose = batch.T_query_reference.retract(unit * scale[:, None])
        factor = target_px / mean_error_px(batch, pose).clamp(min=1e-6)
        scale = scale * factor.clamp(1 / MAX_FACTOR, MAX_FACTOR * 100)
    return batch.T_query_reference.retract(unit * scale[:, None])
