"""Pairs of images with known geometry, which every source of training data yields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixloc_ros.errors import DataError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose

CAMERA_FIELDS = ("size", "focal", "center", "distortion", "max_radius2")


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs of images of one size, on one device; all cameras are pinholes, all numbers float32.

    reference_rgb, query_rgb: (B, 3, H, W) in 0..1, augmented independently.
    camera_reference, camera_query: batches (B,), in pixels of these images.
    T_query_reference: (B,) p_query = T_query_reference @ p_reference, in metres (in units of the
    model if its scale is unknown).
    points_reference: (B, N, 3) in the reference camera's optical frame.
    visible: (B, N) in view of both and hidden in neither; all other points are padding.
    """

    reference_rgb: Tensor
    query_rgb: Tensor
    camera_reference: Camera
    camera_query: Camera
    T_query_reference: Pose
    points_reference: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.visible)

    def to(self, device: torch.device | str) -> PairBatch:
        """Copy the pairs to another device."""
        return PairBatch(
            self.reference_rgb.to(device),
            self.query_rgb.to(device),
            self.camera_reference.to(device),
            self.camera_query.to(device),
            self.T_query_reference.to(device),
            self.points_reference.to(device),
            self.visible.to(device),
        )

    def __getitem__(self, index: Tensor | slice) -> PairBatch:
        """Select pairs, in the order of an index (K,)."""
        return PairBatch(
            self.reference_rgb[index],
            self.query_rgb[index],
            _choose(self.camera_reference, index),
            _choose(self.camera_query, index),
            self.T_query_reference[index],
            self.points_reference[index],
            self.visible[index],
        )


class PairSource(Protocol):
    """Where pairs come from."""

    name: str

    @property
    def skipped(self) -> Counter[str]:
        """Unusable inputs by reason, so far."""

    def __len__(self) -> int:
        """Return the number of distinct photos, or pairs of images, to draw from."""

    def sample(self, count: int, generator: torch.Generator) -> PairBatch:
        """Draw pairs on the source's device; the CPU generator's state determines which."""


def concatenate(batches: Sequence[PairBatch]) -> PairBatch:
    """Combine batches to one; batches with fewer points are padded with invisible ones."""
    count = max(batch.visible.shape[1] for batch in batches)
    padded = [_padded(batch, count) for batch in batches]
    return PairBatch(
        torch.cat([b.reference_rgb for b in padded]),
        torch.cat([b.query_rgb for b in padded]),
        _concatenated([b.camera_reference for b in padded]),
        _concatenated([b.camera_query for b in padded]),
        Pose(
            torch.cat([b.T_query_reference.R for b in padded]),
            torch.cat([b.T_query_reference.t for b in padded]),
        ),
        torch.cat([b.points_reference for b in padded]),
        torch.cat([b.visible for b in padded]),
    )


def pinhole(size: tuple[int, int], focal: Tensor, center: Tensor) -> Camera:
    """Return a batch of pinhole cameras for images of one size (width, height).

    focal, center: (B, 2) pixels.
    """
    count = len(focal)
    return Camera(
        "PINHOLE",
        focal.new_tensor(size).expand(count, 2),
        focal,
        center,
        focal.new_zeros(count, 0),
        focal.new_full((count,), torch.inf),
    )


def _choose(camera: Camera, index: Tensor | slice) -> Camera:
    return Camera(camera.model, *(getattr(camera, field)[index] for field in CAMERA_FIELDS))


def _concatenated(cameras: Sequence[Camera]) -> Camera:
    models = {camera.model for camera in cameras}
    if len(models) > 1:
        raise DataError(f"cameras of models {', '.join(sorted(models))} do not mix in a batch")
    fields = (torch.cat([getattr(c, field) for c in cameras]) for field in CAMERA_FIELDS)
    return Camera(models.pop(), *fields)


def _padded(batch: PairBatch, count: int) -> PairBatch:
    missing = count - batch.visible.shape[1]
    if not missing:
        return batch
    # Padding points lie in front of the camera, so that nothing is divided by zero.
    filler = batch.points_reference.new_tensor([0.0, 0.0, 1.0]).expand(len(batch), missing, 3)
    return PairBatch(
        batch.reference_rgb,
        batch.query_rgb,
        batch.camera_reference,
        batch.camera_query,
        batch.T_query_reference,
        torch.cat([batch.points_reference, filler], 1),
        torch.cat([batch.visible, batch.visible.new_zeros(len(batch), missing)], 1),
    )


def skipped_reasons(skipped: Counter[str]) -> str:
    """Return text such as `3 tiny, 2 unreadable`, or that nothing was there."""
    return ", ".join(f"{n} {reason}" for reason, n in (+skipped).items()) or "none"
