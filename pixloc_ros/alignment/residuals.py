"""Residuals, robust weights and normal equations of one feature level (eq. 1, 2, 4 and 6).

Everything that the Levenberg-Marquardt step needs from the C-dimensional residual r and the
feature gradient G = dF/dp (C, 2) of a point are the six products r.r, G'r and G'G. They are
formed first, so the (C, 6) Jacobian of a point never exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pixloc_ros.alignment.correlation import Correlation
from pixloc_ros.alignment.robust import RobustCost
from pixloc_ros.features.sampling import BILINEAR, BLOCK_ELEMENTS, FeatureLevel, Sampling
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, through_transform


@dataclass(frozen=True, slots=True)
class Linearization:
    """The problem linearised at K poses."""

    cost: Tensor  # (K,) mean robust cost, points out of view counted as unrelated
    gradient: Tensor  # (K, 6)
    hessian: Tensor  # (K, 6, 6), weighted Gauss-Newton
    in_view: Tensor  # (K,) number of points
    pixels: Tensor  # (K, N, 2) in pixels of the level
    squared: Tensor  # (K, N) squared residuals; NaN out of view
    point_gradients: Tensor  # (K, N, 6) whose sum is the gradient

    def __getitem__(self, index: Tensor | int) -> Linearization:
        return Linearization(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class LevelSystem:
    """Query map, reference features and camera of one level.

    points: (N, 3) in local map coordinates. reference: (N, C) of unit norm; confidence: (N,). Each
    of the K poses may have a problem of its own instead: then all of these, the maps of the level
    and the cameras have K in front (training).
    """

    level: FeatureLevel
    camera: Camera  # of the level
    points: Tensor
    reference: Tensor
    confidence: Tensor
    robust: RobustCost
    sampling: Sampling = BILINEAR
    present: Tensor | None = None  # (K, N): the other points are padding
    correlation: Correlation | None = None  # where many poses make it worth while

    @classmethod
    def stack(cls, systems: Sequence[LevelSystem]) -> LevelSystem:
        """One system for K poses, each with the points of its own: all are of one image."""
        first = systems[0]
        one_image = torch.zeros(len(systems), dtype=torch.long, device=first.points.device)
        counts = [torch.ones(len(each.points), device=one_image.device) for each in systems]
        return replace(
            first,
            level=replace(first.level, image=one_image),
            camera=Camera.stack([each.camera for each in systems]),
            points=_padded([each.points for each in systems]),
            reference=_padded([each.reference for each in systems]),
            confidence=_padded([each.confidence for each in systems]),
            present=_padded(counts) > 0,
            correlation=None,
        )

    def __getitem__(self, index: Tensor) -> LevelSystem:
        """The system for some of K poses: the same, unless each has a problem of its own."""
        if self.points.dim() == 2:
            return self
        return replace(
            self,
            level=self.level[index],
            camera=self.camera[index],
            points=self.points[index],
            reference=self.reference[index],
            confidence=self.confidence[index],
            present=None if self.present is None else self.present[index],
        )

    def linearize(self, T_cam_local: Pose, J_camera: Tensor | None = None) -> Linearization:
        """Normal equations at K poses.

        J_camera: (K, N, 2, P) derivative of the pixels by P parameters of the camera, which then
        are unknowns like the six of the pose, behind them.
        """
        pixels, valid, J, products, weight = self._weighted(T_cam_local)
        if J_camera is not None:
            J = torch.cat([J, J_camera], -1)
        squared = products[..., 0, 0]
        point_gradients, hessian = _normal_equations(weight[..., None, None] * products, J)
        return Linearization(
            cost=self._mean_cost(squared, valid),
            gradient=point_gradients.sum(-2),
            hessian=hessian,
            in_view=valid.sum(-1),
            pixels=pixels,
            squared=torch.where(valid, squared, torch.nan),
            point_gradients=point_gradients,
        )

    def cost(self, T_cam_local: Pose) -> Tensor:
        """Mean robust cost (K,) at K poses, as `linearize` has it, without what a step needs."""
        points_cam = T_cam_local.transform(self.points)
        pixels, valid = self.camera.project(points_cam)
        if self.sampling.border_px:
            valid = valid & self.sampling.inside(self.level, pixels)
        residual = self.sampling.values(self.level, pixels)[..., :-1]
        residual -= self.reference  # in place: there are many poses
        return self._mean_cost(residual.square_().sum(-1), valid)

    def gradient_changes(self, T_cam_local: Pose, errors: Tensor) -> Tensor:
        """Return the changes (K, N, 6) of the points' gradients where the points are off.

        errors: (N, 3) of the points' positions. To first order, at K poses, for constant weights.
        """
        _, valid, J, products, weight = self._weighted(T_cam_local)
        errors_cam = errors @ T_cam_local.R.mT  # as sums: products of small matrices take longer
        # The translation of a pose moves a point in the camera like the point's own error.
        moved_px = (J[..., :3] * errors_cam[..., None, :]).sum(-1)
        pull = (products[..., 1:, 1:] * moved_px[..., None, :]).sum(-1)
        changes = (J * pull[..., None]).sum(-2)
        return torch.where(valid[..., None], weight[..., None] * changes, 0)

    def on_its_device(self) -> LevelSystem:
        """Return the system with its camera where its points are."""
        return replace(self, camera=self.camera.to(self.points.device))

    def _weighted(self, T_cam_local: Pose) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the points say at K poses: pixels (K, N, 2), which are in view (K, N), the pixels'
        derivatives by the pose (K, N, 2, 6), products (K, N, 3, 3) and weights (K, N)."""
        points_cam = T_cam_local.transform(self.points)
        # A point that is not finite counts as one behind the camera; zero weight times NaN is NaN.
        points_cam = torch.where(points_cam.isfinite().all(-1, keepdim=True), points_cam, -1.0)
        pixels, valid, J_pixel_cam = self.camera.project_with_jacobian(points_cam)
        if self.sampling.border_px:
            valid = valid & self.sampling.inside(self.level, pixels)
        if self.present is not None:
            valid = valid & self.present
        products, confidence_query = self._products(pixels)
        confidence = torch.where(valid, self.confidence * confidence_query, 0)
        weight = confidence * self.robust.weight(products[..., 0, 0])  # eq. 2 and 6
        return pixels, valid, through_transform(J_pixel_cam, points_cam), products, weight

    def _products(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Gram matrix (K, N, 3, 3) of residual and feature gradients [r, dF/dx, dF/dy].

        Also the query's confidence (K, N).
        """
        if self.correlation is not None:
            return self.correlation.products(pixels)
        if self.points.dim() == 3:  # blocks of poses would not know their images
            return self._products_of_block(pixels)
        evaluations = max(1, BLOCK_ELEMENTS // (3 * self.level.rows.shape[1]))
        blocks = pixels.split(max(1, evaluations // max(1, len(self.points))))
        grams, confidences = zip(*map(self._products_of_block, blocks), strict=True)
        return torch.cat(grams), torch.cat(confidences)

    def _products_of_block(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        residual_and_slopes, confidence_query = self._residual_and_slopes(pixels)
        return residual_and_slopes @ residual_and_slopes.mT, confidence_query

    def _residual_and_slopes(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Residual r = F_query[p] - F_reference (eq. 1) and the slopes of F_query along x and y.

        Returns [r, dF/dx, dF/dy] (K, N, 3, C + 1), whose last channel is zero, and the query's
        confidence (K, N), which the sampled map holds in that channel.
        """
        sampled = self.sampling.read(self.level, pixels)  # value, x slope, y slope
        confidence_query = sampled[..., 0, -1].clone()
        sampled[..., -1] = 0  # cheaper than cutting the channel off: memory stays contiguous
        residual = sampled[..., 0, :-1]
        residual -= self.reference  # in place, in `sampled`
        return sampled, confidence_query

    def _mean_cost(self, squared: Tensor, valid: Tensor) -> Tensor:
        # Weighted by the reference's confidence only: it does not depend on the pose, so a pose
        # cannot win by looking where the query is not confident.
        cost = torch.where(valid, self.robust.cost(squared).clamp(max=1), 1)
        total = self.confidence.sum(-1).clamp(min=torch.finfo(cost.dtype).tiny)
        return (cost * self.confidence).sum(-1) / total


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows (N, ...) of K problems as one tensor (K, N, ...), with zeros behind the shorter ones."""
    return pad_sequence(list(rows), batch_first=True)


def _normal_equations(weighted: Tensor, J: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the points (K, N, 6) and Hessian (K, 6, 6).

    weighted: (K, N, 3, 3) products of residual and feature gradients. J: (K, N, 2, 6). Written
    out for x and y: products of such small matrices take twice the time.
    """
    J_x, J_y = J.unbind(-2)
    (_, r_x, r_y), (_, xx, xy), (_, _, yy) = (
        row[..., None].unbind(-2) for row in weighted.unbind(-2)
    )
    hessian = J_x.mT @ (xx * J_x + xy * J_y) + J_y.mT @ (xy * J_x + yy * J_y)
    return r_x * J_x + r_y * J_y, hessian
