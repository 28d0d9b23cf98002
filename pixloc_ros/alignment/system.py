"""Residuals, robust weights and normal equations of one feature level (eq. 1, 2, 4 and 6).

Everything that the Levenberg-Marquardt step needs from the C-dimensional residual r and the
feature gradient G = dF/dp (C, 2) of a point are the six products r.r, G'r and G'G. They are
formed first, so the (C, 6) Jacobian of a point never exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixloc_ros.features.pyramid import FeatureLevel, bilinear_weights
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, jacobian_of_transform


@dataclass(frozen=True, slots=True)
class RobustCost:
    """Cauchy cost on x = |r|^2, scaled so that 1 is the cost of an unrelated feature (x = 2)."""

    scale: float

    def cost(self, x: Tensor) -> Tensor:
        return torch.log1p(x / self.scale) / math.log1p(2.0 / self.scale)

    def weight(self, x: Tensor) -> Tensor:
        """The derivative by x, up to the constant factor: 1 for small residuals."""
        return 1.0 / (1.0 + x / self.scale)


@dataclass(frozen=True, slots=True)
class Linearization:
    """The problem linearised at K poses."""

    cost: Tensor  # (K,) mean robust cost, points out of view counted as unrelated
    gradient: Tensor  # (K, 6)
    hessian: Tensor  # (K, 6, 6), weighted Gauss-Newton
    seen: Tensor  # (K,) number of points in view
    pixels: Tensor  # (K, N, 2) in pixels of the level
    squared: Tensor  # (K, N) squared residuals; NaN out of view
    point_gradients: Tensor  # (K, N, 6) whose sum is the gradient

    def __getitem__(self, index: Tensor | int) -> Linearization:
        return Linearization(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class LevelSystem:
    """Query map, reference features and camera of one level.

    points: (N, 3) in local map coordinates. reference: (N, C) of unit norm; confidence: (N,).
    """

    level: FeatureLevel
    camera: Camera  # of the level
    points: Tensor
    reference: Tensor
    confidence: Tensor
    robust: RobustCost

    def linearize(self, T_cam_local: Pose) -> Linearization:
        """Normal equations at K poses."""
        points_cam = T_cam_local.transform(self.points)
        pixels, valid, J_pixel_cam = self.camera.project_with_jacobian(points_cam)
        J = J_pixel_cam @ jacobian_of_transform(points_cam)  # (K, N, 2, 6)
        products, confidence_query = self._products(pixels)
        squared = products[..., 0, 0]
        confidence = torch.where(valid, self.confidence * confidence_query, 0)
        weight = confidence * self.robust.weight(squared)
        weighted_J = weight[..., None, None] * J
        point_gradients = (products[..., None, 0, 1:] @ weighted_J)[..., 0, :]
        curvature_J = products[..., 1:, 1:] @ J
        return Linearization(
            cost=self._mean_cost(squared, valid),
            gradient=point_gradients.sum(-2),
            hessian=weighted_J.flatten(1, 2).mT @ curvature_J.flatten(1, 2),
            seen=valid.sum(-1),
            pixels=pixels,
            squared=torch.where(valid, squared, torch.nan),
            point_gradients=point_gradients,
        )

    def _products(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Gram matrix (K, N, 3, 3) of residual and feature gradients [r, dF/dx, dF/dy]."""
        corners, fraction = self.level.corners(pixels)
        stencil = torch.stack([bilinear_weights(fraction), *gradient_weights(fraction)], -2)
        rows = stencil @ corners
        confidence = rows[..., 0, -1]
        rows = rows[..., :-1]
        rows[..., 0, :] -= self.reference
        return rows @ rows.mT, confidence

    def _mean_cost(self, squared: Tensor, valid: Tensor) -> Tensor:
        # Weighted by the reference's confidence only: it does not depend on the pose, so a pose
        # cannot win by looking where the query is not confident.
        cost = torch.where(valid, self.robust.cost(squared).clamp(max=1), 1)
        total = self.confidence.sum().clamp(min=torch.finfo(cost.dtype).tiny)
        return (cost * self.confidence).sum(-1) / total


def gradient_weights(fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (..., 4) of the corners for the x and y derivative of the bilinear patch."""
    x, y = fraction.unbind(-1)
    return torch.stack([y - 1, 1 - y, -y, y], -1), torch.stack([x - 1, -x, 1 - x, x], -1)
