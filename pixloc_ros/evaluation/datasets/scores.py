"""Score poses by the conventions of the benchmarks, which differ from `evaluation.metrics`.

Errors are measured between camera centres and between rotations. A query without an estimate counts
as infinitely far off and rotated by 180 deg. In most benchmarks limits are strict: an error equal
to the limit is outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

MISSING_M, MISSING_DEG = np.inf, 180.0


class Limit(NamedTuple):
    """A query counts if both errors are below these limits; also if equal, when `inclusive`."""

    below_m: float
    below_deg: float = np.inf
    inclusive: bool = False

    def __str__(self) -> str:
        if self.below_deg == np.inf:
            return f"{self.below_m:g} m"
        if self.below_m < 0.1:
            return f"{100 * self.below_m:g} cm {self.below_deg:g} deg"
        return f"{self.below_m:g} m {self.below_deg:g} deg"

    def holds(self, errors: PoseErrors) -> NDArray[np.bool_]:
        """Return which queries are within the limit (N,)."""
        if self.inclusive:
            return (errors.distance_m <= self.below_m) & (errors.angle_deg <= self.below_deg)
        return (errors.distance_m < self.below_m) & (errors.angle_deg < self.below_deg)


# As in the scripts for Cambridge Landmarks and 7Scenes, and on visuallocalization.net.
INDOOR = (Limit(0.01, 1.0), Limit(0.02, 2.0), Limit(0.03, 3.0), Limit(0.05, 5.0))
OUTDOOR = (Limit(0.25, 2.0), Limit(0.5, 5.0), Limit(5.0, 10.0))


@dataclass(frozen=True, slots=True)
class PoseErrors:
    """Errors (N,) of N queries."""

    distance_m: Matrix
    angle_deg: Matrix

    def __len__(self) -> int:
        return len(self.distance_m)


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of a set of queries."""

    queries: int
    estimated: int  # queries with a pose, right or wrong
    median_m: float  # inf if half of the queries have no pose
    median_deg: float
    recall: dict[Limit, float]  # share of all queries


def pose_errors(
    T_cam_world: Mapping[str, Matrix], T_cam_world_true: Mapping[str, Matrix]
) -> PoseErrors:
    """Compare poses (4, 4) by name with the true ones, in the order of these.

    Poses without a true one are ignored.
    """
    distance_m = np.full(len(T_cam_world_true), MISSING_M)
    angle_deg = np.full(len(T_cam_world_true), MISSING_DEG)
    found = [i for i, name in enumerate(T_cam_world_true) if name in T_cam_world]
    if found:
        names = list(T_cam_world_true)
        estimated = np.stack([T_cam_world[names[i]] for i in found])
        true = np.stack([T_cam_world_true[names[i]] for i in found])
        distance_m[found], angle_deg[found] = _errors(estimated, true)
    return PoseErrors(distance_m, angle_deg)


def _errors(T_cam_world: Matrix, T_cam_world_true: Matrix) -> tuple[Matrix, Matrix]:
    """Return distances (N,) of camera centres in metres, and angles of rotations in degrees."""
    T_world_cam, T_world_cam_true = se3.inverse(T_cam_world), se3.inverse(T_cam_world_true)
    distance_m = np.linalg.norm((T_world_cam - T_world_cam_true)[:, :3, 3], axis=-1)
    turn = Rotation.from_matrix(T_cam_world[:, :3, :3] @ T_world_cam_true[:, :3, :3])
    return distance_m, np.rad2deg(turn.magnitude())


def recall(errors: PoseErrors, limit: Limit) -> float:
    """Return the share of all queries within the limit."""
    return float(limit.holds(errors).mean())


def score(errors: PoseErrors, limits: Sequence[Limit]) -> Score:
    """Score one or more queries."""
    return Score(
        queries=len(errors),
        estimated=int(np.isfinite(errors.distance_m).sum()),
        median_m=_median(errors.distance_m),
        median_deg=_median(errors.angle_deg),
        recall={limit: recall(errors, limit) for limit in limits},
    )


def pool(parts: Sequence[PoseErrors]) -> PoseErrors:
    """Combine queries to one set, as the server pools conditions; this is not a mean of means."""
    return PoseErrors(
        np.concatenate([part.distance_m for part in parts]),
        np.concatenate([part.angle_deg for part in parts]),
    )


def _median(values: Matrix) -> float:
    middle = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]]
    return float(middle[0] if middle[0] == middle[1] else middle.mean())  # inf - inf would be NaN
