"""Points and who sees them, in arrays; adjusted without a table of all observations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import LOSS_PX

ITERATIONS = 5  # of a point's adjustment
DAMPING = 1e-6  # of a point's normal equations, as a share of their diagonal
BATCH = 50_000  # observations whose derivatives are in memory


@dataclass(frozen=True, slots=True, eq=False)
class DistinctCameras:
    """The calibrations of images, each once."""

    distinct: tuple[Camera, ...]
    of_image: NDArray[np.int64]  # (N,)

    @classmethod
    def of(cls, cameras: Sequence[Camera]) -> DistinctCameras:
        """Of N images."""
        known: dict[str, int] = {}
        of_image = [known.setdefault(repr(c.to_colmap()), len(known)) for c in cameras]
        first = [of_image.index(kind) for kind in range(len(known))]
        return cls(tuple(cameras[i] for i in first), np.array(of_image, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class JoinedTracks:
    """Points and who sees them: O observations, in the order of the P points."""

    image: NDArray[np.int64]  # (O,)
    point: NDArray[np.int64]  # (O,) ascending
    pixels: Matrix  # (O, 2)
    points: Matrix  # (P, 3)
    cameras: DistinctCameras

    def only(self, good: NDArray[np.bool_]) -> JoinedTracks:
        """Those observations, of points that two of them see."""
        seen = np.bincount(self.point[good], minlength=len(self.points)) >= 2
        good = good & seen[self.point]
        _, point = np.unique(self.point[good], return_inverse=True)
        return replace(
            self,
            image=self.image[good],
            point=point,
            pixels=self.pixels[good],
            points=self.points[seen],
        )

    def grouped(self, group: NDArray[np.int64], weight: NDArray[np.int64]) -> JoinedTracks:
        """Points of a group (P,) as one, at their weighted mean; weight (P,) is not all zero."""
        total = np.bincount(group, weight)
        means = sums(group, weight[:, None] * self.points, len(total))
        good = total[group] > 0
        group = group[self.point]
        order = np.argsort(group, kind="stable")
        return replace(
            self,
            image=self.image[order],
            point=group[order],
            pixels=self.pixels[order],
            points=means / np.maximum(total, 1)[:, None],
        ).only(good[self.point][order])

    def batches(self) -> Iterator[tuple[slice, JoinedTracks]]:
        """All points in ranges of at most BATCH observations, or of one point."""
        ends = np.searchsorted(self.point, np.arange(1, len(self.points) + 1))
        first = 0
        while first < len(self.points):
            begin = ends[first - 1] if first else 0
            stop = max(first + 1, int(np.searchsorted(ends, begin + BATCH, "right")))
            own = slice(begin, ends[stop - 1])
            yield (
                slice(first, stop),
                replace(
                    self,
                    image=self.image[own],
                    point=self.point[own] - first,
                    pixels=self.pixels[own],
                    points=self.points[first:stop],
                ),
            )
            first = stop

    def residuals(self, T_map_cam: Matrix) -> tuple[Matrix, Matrix]:
        """Pixels (O, 2) by which projections are off keypoints, and d/d point (O, 2, 3)."""
        T_cam_map = se3.inverse(T_map_cam)[self.image]
        R = T_cam_map[:, :3, :3]
        points_cam = np.einsum("kij,kj->ki", R, self.points[self.point]) + T_cam_map[:, :3, 3]
        residual, J = np.zeros((len(R), 2)), np.zeros((len(R), 2, 3))
        kinds = self.cameras.of_image[self.image]
        for kind, camera in enumerate(self.cameras.distinct):
            own = kinds == kind
            pixels, _, J_cam = camera.project_with_jacobian(torch.from_numpy(points_cam[own]))
            residual[own] = pixels.numpy() - self.pixels[own]
            J[own] = J_cam.numpy() @ R[own]
        return residual, J

    def errors_px(self, T_map_cam: Matrix) -> NDArray[np.float64]:
        """(O,) distances of projections from keypoints."""
        found = [batch.residuals(T_map_cam)[0] for _, batch in self.batches()]
        return np.linalg.norm(np.concatenate([np.zeros((0, 2)), *found]), axis=-1)

    def adjusted(self, T_map_cam: Matrix, iterations: int = ITERATIONS) -> JoinedTracks:
        """Gauss-Newton on each point, robust (Cauchy); the poses stay as they are."""
        points = self.points.copy()
        for own, batch in self.batches():
            for _ in range(iterations):
                batch = batch.stepped(T_map_cam)
            points[own] = batch.points
        return replace(self, points=points)

    def moved(self, T: Matrix) -> JoinedTracks:
        """With all points moved by T (4, 4)."""
        return replace(self, points=se3.transform(T, self.points))

    def stepped(self, T_map_cam: Matrix) -> JoinedTracks:
        """One step of that."""
        count = len(self.points)
        residual, J = self.residuals(T_map_cam)
        weighted = J * robust_weights(residual)[:, None, None]
        H = sums(self.point, np.swapaxes(weighted, -1, -2) @ J, count)
        g = sums(self.point, np.einsum("kri,kr->ki", weighted, residual), count)
        return replace(self, points=self.points + np.linalg.solve(damped(H), -g[..., None])[..., 0])


def robust_weights(residual: Matrix) -> NDArray[np.float64]:
    """Cauchy's, (O,) of residuals (O, 2) in pixels."""
    return np.asarray(1 / (1 + (residual**2).sum(-1) / LOSS_PX**2))


def damped(H: Matrix) -> Matrix:
    """Normal equations of points (P, 3, 3) that can be solved, whatever the parallax tells."""
    damping = DAMPING * np.trace(H, axis1=1, axis2=2) + 1e-12
    return H + damping[:, None, None] * np.eye(3)


def sums(index: NDArray[np.int64], values: Matrix, count: int) -> Matrix:
    """(count, ...) sums of values (O, ...) by index (O,)."""
    rows = sparse.csr_matrix(
        (np.ones(len(index)), (index, np.arange(len(index)))), (count, len(index))
    )
    flat = values.reshape(len(index), math.prod(values.shape[1:]))
    return np.asarray(rows @ flat).reshape(count, *values.shape[1:])
