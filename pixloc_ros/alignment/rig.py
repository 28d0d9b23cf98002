"""Several cameras of one vehicle, aligned as one problem.

The pose that is solved for is that of the first camera, the lead. The others are fixed to it, so
their points add up in the same six normal equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.residuals import LevelSystem, Linearization
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, skew
from pixloc_ros.maps.view import MapView


@dataclass(frozen=True, slots=True)
class CameraObservation:
    """The image of one camera, and the part of the map that it is aligned against."""

    pyramid: FeaturePyramid
    camera: Camera  # of the image, unbatched
    view: MapView
    T_cam_lead: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    def points(self, origin: NDArray[np.float64]) -> Tensor:
        """(N, 3) of the view, relative to an origin (3,) in map coordinates."""
        offset = self.view.points.new_tensor(self.view.origin - origin)
        return self.view.points + offset


@dataclass(frozen=True, slots=True)
class RigSystem:
    """The systems of all cameras on one level, as one. T_cam_lead: (S,) one for each system."""

    systems: Sequence[LevelSystem]
    T_cam_lead: Pose

    def __getitem__(self, index: Tensor) -> RigSystem:
        """The system for some of the poses: the same, as they share it."""
        return self

    def cost(self, T_lead_local: Pose) -> Tensor:
        """Mean robust cost (K,) at K poses of the lead."""
        costs = [
            system.cost(self.T_cam_lead[i] @ T_lead_local) for i, system in enumerate(self.systems)
        ]
        return torch.stack(costs, -1) @ self._weights()

    def linearize(self, T_lead_local: Pose) -> Linearization:
        """Normal equations of the lead's update at K poses; points one camera after the other."""
        parts = [
            _as_lead(system.linearize(self.T_cam_lead[i] @ T_lead_local), self.T_cam_lead[i])
            for i, system in enumerate(self.systems)
        ]
        return Linearization(
            cost=torch.stack([part.cost for part in parts], -1) @ self._weights(),
            gradient=sum_of([part.gradient for part in parts]),
            hessian=sum_of([part.hessian for part in parts]),
            in_view=sum_of([part.in_view for part in parts]),
            pixels=torch.cat([part.pixels for part in parts], -2),
            squared=torch.cat([part.squared for part in parts], -1),
            point_gradients=torch.cat([part.point_gradients for part in parts], -2),
        )

    def _weights(self) -> Tensor:
        """Share (S,) of each system in the cost."""
        weights = torch.stack([system.confidence.sum() for system in self.systems])
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _as_lead(at: Linearization, T_cam_lead: Pose) -> Linearization:
    """The same problem in the update of the lead instead of the camera's own."""
    A = adjoint(T_cam_lead)
    return Linearization(
        cost=at.cost,
        gradient=at.gradient @ A,
        hessian=A.mT @ at.hessian @ A,
        in_view=at.in_view,
        pixels=at.pixels,
        squared=at.squared,
        point_gradients=at.point_gradients @ A,
    )


def adjoint(T_a_b: Pose) -> Tensor:
    """Return the map (6, 6) from an update on the left in frame b to the same motion in frame a.

    It holds to first order.
    """
    upper = torch.cat([T_a_b.R, skew(T_a_b.t) @ T_a_b.R], -1)
    lower = torch.cat([torch.zeros_like(T_a_b.R), T_a_b.R], -1)
    return torch.cat([upper, lower], -2)
