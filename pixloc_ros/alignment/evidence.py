"""The evidence: what is measured on the image that speaks for and against the pose found.

It is measured at the pose, around it, and with halves of the points. docs/lab/verification.md tells
what each kind of evidence separates, and what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import FINE, Aligner, Stage
from pixloc_ros.alignment.initial_poses import poses_around
from pixloc_ros.alignment.problems import AlignmentProblem, local_poses
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment, Evidence, Matrix, loss

AROUND = 16  # poses
SHARPNESS_PX, CONTRAST_PX = 6.0, 12.0
CELLS = (6, 4)  # of the image, across and down
MIN_CELL_POINTS, MIN_CELL_SHARE = 5, 0.1
HALF_ITERATIONS = 10


@dataclass(frozen=True, slots=True)
class EvidenceGatherer:
    """Gathers what speaks for and against the pose of one alignment."""

    problem: AlignmentProblem
    alignment: Alignment
    aligner: Aligner

    def evidence(self) -> Evidence:
        """Gather all evidence but that of the halves, which takes alignments of its own."""
        cost = self._costs()
        lost = loss(cost, cost[0])
        return Evidence(
            sharpness=float(lost[1 : 1 + AROUND].min()),
            contrast=float(lost[1 + AROUND :].mean()),
            spread=self._spread(),
            runner_up_loss=self.alignment.runner_up_loss,
        )

    def halves_px(self) -> float:
        """How far poses lie apart that two halves of the points come to, each for itself.

        In mean motion of the points, the worse of two splits: near and far, left and right. Each
        half begins at the pose that was found. Halves that are apart in the image err apart, other
        than random ones.
        """
        return max(self._split_px(self._depths()), self._split_px(self._columns()))

    def _split_px(self, orders: Sequence[Tensor]) -> float:
        """Distance between the poses of the lower and the upper half of each camera's points."""
        halves, observations = [], self.problem.observations
        for upper in (False, True):
            half = [_half(o, order, upper) for o, order in zip(observations, orders, strict=True)]
            stage = Stage(FINE, HALF_ITERATIONS, keep=1)
            refined = self.aligner.refine([stage], half, self._pose)
            halves.append(refined.history[-1][1].T_cam_local[0])
        return self._distance_px(*halves)

    def _depths(self) -> list[Tensor]:
        """(N,) of the points of each camera."""
        return [points[:, 2] for points in self._points_cam()]

    def _columns(self) -> list[Tensor]:
        """(N,) tangents of the points of each camera to the right of its axis."""
        return [points[:, 0] / points[:, 2].clamp(min=1e-3) for points in self._points_cam()]

    def _points_cam(self) -> list[Tensor]:
        origin = self.problem.observations[0].view.origin
        return [
            (Pose.from_matrix(_tensor(o.T_cam_lead, o)) @ self._pose[0]).transform(o.points(origin))
            for o in self.problem.observations
        ]

    @property
    def _pose(self) -> Pose:
        """T_cam_local (1,) of the lead as found."""
        view = self.problem.observations[0].view
        return local_poses(self.alignment.T_map_cam[None], view)

    def _costs(self) -> Matrix:
        """Costs (K,) at the pose, near around it, and farther around it."""
        lead = self.problem.observations[0]
        points, camera = lead.view.points, lead.camera.to(lead.view.points.device)
        camera = camera.scale(lead.pyramid.scale)
        around = poses_around(self._pose[0], points, camera, (SHARPNESS_PX, CONTRAST_PX), AROUND)
        system = self.aligner.joint_system(self.problem.observations, Stage(FINE, 0, keep=None))
        return system.cost(Pose.cat([self._pose, around])).double().cpu().numpy()

    def _spread(self) -> float:
        """Share of the images' cells with points in which enough of them are inliers."""
        cameras = [observation.camera for observation in self.problem.observations]
        counts = [len(observation.view) for observation in self.problem.observations]
        size = np.repeat([camera.size.tolist() for camera in cameras], counts, axis=0)
        camera_index = np.repeat(np.arange(len(cameras)), counts)
        residuals = self.alignment.residuals
        seen = np.isfinite(residuals)
        inliers = residuals[seen] ** 2 < self.aligner.config.inlier_max_squared_residual
        cell = (self.alignment.pixels[seen] / size[seen] * CELLS).astype(int)
        cell = cell.clip(0, np.array(CELLS) - 1) @ (1, CELLS[0])
        cell += camera_index[seen] * CELLS[0] * CELLS[1]
        points = np.bincount(cell)
        agreeing = np.bincount(cell, inliers, len(points))
        filled = points >= MIN_CELL_POINTS
        if not filled.any():
            return 0.0
        return float((agreeing[filled] > MIN_CELL_SHARE * points[filled]).mean())

    def _distance_px(self, first: Pose, second: Pose) -> float:
        """Mean motion of the lead's points in view between two of its poses."""
        lead = self.problem.observations[0]
        camera = lead.camera.to(lead.view.points.device).scale(lead.pyramid.scale)
        points = [pose.transform(lead.view.points) for pose in (first, second)]
        (pixels_0, in_0), (pixels_1, in_1) = map(camera.project, points)
        in_both = in_0 & in_1
        if not in_both.any():
            return float("inf")
        return float((pixels_0 - pixels_1)[in_both].norm(dim=-1).mean())


def _half(observation: CameraObservation, order: Tensor, upper: bool) -> CameraObservation:
    """The observation with the half of its view's points that comes first or last in an order."""
    view, middle = observation.view, len(order) // 2
    rows = order.argsort()[middle:] if upper else order.argsort()[:middle]
    half = replace(
        view,
        points=view.points[rows],
        point_ids=view.point_ids[rows.cpu().numpy()],
        features=tuple(level[rows] for level in view.features),
        confidences=tuple(level[rows] for level in view.confidences),
        further=None,
        depth_errors=None,  # for the covariance only
    )
    return replace(observation, view=half)


def _tensor(matrix: Matrix, observation: CameraObservation) -> Tensor:
    return torch.from_numpy(matrix).to(observation.view.points)
