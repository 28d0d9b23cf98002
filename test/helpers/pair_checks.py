"""What holds for pairs of every source."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training import parallax
from pixloc_ros.training.data_config import AugmentationConfig, SourceConfig
from pixloc_ros.training.pairs import PairBatch, PairSource
from pixloc_ros.training.sources import open_source

SIZE = (192, 128)
PLAIN = AugmentationConfig(enabled=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(config: SourceConfig) -> PairSource:
    return open_source(config, SIZE, "cpu", PLAIN)


def colour_differences(batch: PairBatch, shift_px: float = 0.0) -> np.ndarray:
    """Of all visible points (M,), between the reference and the query, whose pixels are moved."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    pixels_reference, _ = batch.camera_reference.project(batch.points_reference)
    pixels_query, _ = batch.camera_query.project(in_query)
    reference = parallax.sample(batch.reference_rgb, pixels_reference)
    query = parallax.sample(batch.query_rgb, pixels_query + shift_px)
    return (reference - query).abs().mean(1)[batch.visible].numpy()


def assert_corresponds(batch: PairBatch) -> None:
    """Colours agree at what is said to correspond, and disagree 3 px beside it."""
    at, beside = colour_differences(batch), colour_differences(batch, shift_px=3.0)
    assert len(at) > 20 * len(batch)
    assert np.median(at) < 0.012 and np.mean(at < 0.06) > 0.97
    assert np.median(beside) > 3 * np.median(at)


def assert_in_view(batch: PairBatch) -> None:
    """Visible points are in front of both cameras and in both images."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    for camera, points in (
        (batch.camera_reference, batch.points_reference),
        (batch.camera_query, in_query),
    ):
        assert camera.project(points)[1][batch.visible].all()


def assert_same(a: PairBatch, b: PairBatch) -> None:
    for field in ("reference_rgb", "query_rgb", "points_reference", "visible"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    assert torch.equal(a.T_query_reference.matrix(), b.T_query_reference.matrix())
    assert torch.equal(a.camera_query.center, b.camera_query.center)


def largest_turn_deg(T_b_a: Pose) -> float:
    """Of a batch of poses (B,)."""
    return float(np.rad2deg(Rotation.from_matrix(T_b_a.R.numpy()).magnitude().max()))
