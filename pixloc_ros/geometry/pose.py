"""Batched rigid transforms in torch, for the aligner and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL_ANGLE = 1e-7  # below it the rotation is first order, as in the reference implementation


def skew(v: Tensor) -> Tensor:
    """Return cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def so3_exp(w: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of rotation vectors (..., 3) in radians (Rodrigues)."""
    theta = w.norm(dim=-1)[..., None, None]
    small = theta < SMALL_ANGLE
    safe = torch.where(small, torch.ones_like(theta), theta)
    W = skew(w)
    a = torch.where(small, torch.ones_like(theta), torch.sin(safe) / safe)
    # 1 - cos loses all digits near zero; the formula with the half angle does not.
    b = torch.where(small, torch.zeros_like(theta), 0.5 * (torch.sin(safe / 2) / (safe / 2)) ** 2)
    return torch.eye(3, dtype=w.dtype, device=w.device) + a * W + b * (W @ W)


@dataclass(frozen=True, slots=True)
class Pose:
    """`T_a_b` as R (..., 3, 3) and t (..., 3); `T_a_b @ T_b_c` composes and broadcasts batches."""

    R: Tensor
    t: Tensor

    @classmethod
    def from_matrix(cls, T: Tensor) -> Pose:
        """Convert from (..., 4, 4) or (..., 3, 4)."""
        return cls(T[..., :3, :3], T[..., :3, 3])

    @classmethod
    def exp(cls, twist: Tensor) -> Pose:
        """Convert a twist (..., 6), translation first, to a pose, uncoupled: (so3_exp(w), v)."""
        v, w = twist.split(3, -1)
        return cls(so3_exp(w), v)

    @classmethod
    def identity(cls, batch: tuple[int, ...] = (), like: Tensor | None = None) -> Pose:
        """Return identity poses of a batch shape, with the dtype and device of `like`."""
        like = torch.zeros(()) if like is None else like
        eye = torch.eye(3, dtype=like.dtype, device=like.device).expand(*batch, 3, 3)
        return cls(eye, eye.new_zeros(*batch, 3))

    @classmethod
    def cat(cls, poses: Sequence[Pose]) -> Pose:
        """Concatenate batches of poses (K_i,)."""
        return cls(torch.cat([pose.R for pose in poses]), torch.cat([pose.t for pose in poses]))

    def matrix(self) -> Tensor:
        """Return (..., 4, 4)."""
        top = torch.cat([self.R, self.t[..., None]], -1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
        return torch.cat([top, bottom], -2)

    def inverse(self) -> Pose:
        """Return T_b_a of T_a_b."""
        R = self.R.mT
        return Pose(R, -(R @ self.t[..., None])[..., 0])

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.R @ other.R, (self.R @ other.t[..., None])[..., 0] + self.t)

    def transform(self, points_b: Tensor) -> Tensor:
        """Convert points (..., N, 3) from frame b to frame a."""
        return points_b @ self.R.mT + self.t[..., None, :]

    def retract(self, twist: Tensor) -> Pose:
        """Apply an update (..., 6), translation first, on the left, in frame a."""
        return Pose.exp(twist) @ self

    def __getitem__(self, index: object) -> Pose:
        return Pose(self.R[index], self.t[index])  # type: ignore[index]

    def where(self, mask: Tensor, other: Pose) -> Pose:
        """Return this pose where mask (...) is true, the other one elsewhere."""
        R = torch.where(mask[..., None, None], self.R, other.R)
        return Pose(R, torch.where(mask[..., None], self.t, other.t))

    def to(self, *args: object, **kwargs: object) -> Pose:
        """Move or convert both tensors, like torch.Tensor.to."""
        return Pose(self.R.to(*args, **kwargs), self.t.to(*args, **kwargs))  # type: ignore[call-overload]

    def detach(self) -> Pose:
        """Return a copy that is detached from the autograd graph."""
        return Pose(self.R.detach(), self.t.detach())


def jacobian_of_transform(points_a: Tensor) -> Tensor:
    """Return d(exp(twist) p)/d(twist) at zero: [I | -[p]x] (..., N, 3, 6) of points (..., N, 3)."""
    eye = torch.eye(3, dtype=points_a.dtype, device=points_a.device)
    return torch.cat([eye.expand(*points_a.shape[:-1], 3, 3), -skew(points_a)], -1)


def through_transform(J: Tensor, points_a: Tensor) -> Tensor:
    """Return J @ jacobian_of_transform(points_a), (..., N, M, 6), of J (..., N, M, 3).

    A row j becomes [j | p x j], in a third of the matrix product's time.
    """
    x, y, z = points_a[..., None, :].unbind(-1)
    a, b, c = J.unbind(-1)
    return torch.stack([a, b, c, y * c - z * b, z * a - x * c, x * b - y * a], -1)
