"""How far apart two maps are where they overlap, stretch by stretch, by points that look alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import skew
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.merge.matching import PointPairs
from pixloc_ros.maps.merge.placed_map import PlacedMap

STRETCH_M = 8.0  # around a keyframe, whose keyframes tell its offset together
MAX_SIGMA_M = 0.5  # of points that an offset is first told by
SMOOTHED, SMOOTH_M = 8, 4.0  # offsets that count at a place, and at what distance less (1/e)
TRIALS = 100
TOLERANCE_M = 0.15  # within which a pair agrees with an offset that others tell
MIN_PAIRS, MIN_SHARE = 20, 0.25  # of the pairs, that have to agree
ROUNDS = 5
CHI2_99 = 11.3  # of three numbers, 99 % are below
POSE_SIGMA_M = 0.02  # of what pixels do not tell: the keyframes' poses


@dataclass(frozen=True, slots=True)
class Offsets:
    """What brings keyframes (N,) of the second map onto the first, in the frame of both."""

    keyframe: NDArray[np.intp]
    T_first_second: Matrix  # (N, 4, 4)
    distance_m: NDArray[np.float64]  # (N,) median of its points, that they are moved
    angle_deg: NDArray[np.float64]  # (N,)

    def __len__(self) -> int:
        return len(self.keyframe)


def find_offsets(first: PlacedMap, second: PlacedMap, pairs: PointPairs) -> Offsets:
    """The rigid transforms that most pairs around each keyframe agree with, where enough do.

    A pair counts as much as pixels tell of its two points: of those far away only the direction.
    """
    known = _KnownPairs.of(first, second, pairs)
    keyframes, transforms, distances_m = [], [], []
    for keyframe in np.unique(second.keyframe[np.isin(second.point, pairs.second)]).tolist():
        found = _offset_of(known.chosen(_around(second, keyframe, pairs)))
        if found is not None:
            keyframes.append(keyframe)
            transforms.append(found[0])
            distances_m.append(found[1])
    T = np.array(transforms).reshape(-1, 4, 4)
    turn = Rotation.from_matrix(T[:, :3, :3]) if len(T) else Rotation.identity(0)
    return Offsets(
        keyframe=np.array(keyframes, np.intp),
        T_first_second=T,
        distance_m=np.array(distances_m),
        angle_deg=np.rad2deg(turn.magnitude()),
    )


def aligned(second: PlacedMap, offsets: Offsets) -> PlacedMap:
    """The second map brought onto the first: each keyframe by the offsets around it, or the nearest
    ones, and each point as the keyframes that see it are, on average."""
    T = _smooth(second.T_new_cam[:, :3, 3], second.T_new_cam[offsets.keyframe, :3, 3], offsets)
    sums = np.zeros_like(second.points)
    for keyframe, ids in second.observed():
        sums[ids] += se3.transform(T[keyframe], second.points[ids])
    points = sums / np.maximum(second.track_length, 1)[:, None]
    points[second.track_length == 0] = np.nan
    return second.moved(T @ second.T_new_cam, points)


def _smooth(places: Matrix, known: Matrix, offsets: Offsets) -> Matrix:
    """Transforms (K, 4, 4) for places (K, 3), the means of those around, known at places (N, 3)."""
    count = min(SMOOTHED, len(known))
    distances_m, nearest = KDTree(known).query(places, np.arange(1, count + 1))
    weights = np.exp((distances_m[:, :1] - distances_m) / SMOOTH_M)
    weights /= weights.sum(1, keepdims=True)
    result = np.empty((len(places), 4, 4))
    for k, place in enumerate(places):
        T = offsets.T_first_second[nearest[k]]
        turn = Rotation.from_matrix(T[:, :3, :3]).mean(weights[k]).as_matrix()
        moved = weights[k] @ (T[:, :3, :3] @ place + T[:, :3, 3])
        result[k] = se3.make(turn, moved - turn @ place)
    return result


@dataclass(frozen=True, slots=True)
class _KnownPairs:
    """Points (N, 3) of the first map and of the second, and how well they tell an offset."""

    a: Matrix
    b: Matrix
    information: Matrix  # (N, 3, 3) of their difference
    sigma_m: NDArray[np.float64]  # largest

    @classmethod
    def of(cls, first: PlacedMap, second: PlacedMap, pairs: PointPairs) -> _KnownPairs:
        known = zip((first, second), (pairs.first, pairs.second), strict=True)
        covariance = np.sum([np.linalg.inv(m.information[ids]) for m, ids in known], axis=0)
        information = np.linalg.inv(covariance + POSE_SIGMA_M**2 * np.eye(3))
        return cls(
            first.points[pairs.first],
            second.points[pairs.second],
            information,
            np.sqrt(np.linalg.eigvalsh(covariance)[:, -1]),
        )

    def chosen(self, which: NDArray) -> _KnownPairs:
        return _KnownPairs(*(getattr(self, name)[which] for name in self.__slots__))


def _around(second: PlacedMap, keyframe: int, pairs: PointPairs) -> NDArray[np.bool_]:
    """(N,) which pairs the keyframes around one see."""
    near = second.places.query_ball_point(second.T_new_cam[keyframe, :3, 3], STRETCH_M)
    return np.isin(pairs.second, np.concatenate([second.seen_by(k) for k in near]))


def _offset_of(pairs: _KnownPairs) -> tuple[Matrix, float] | None:
    """The transform (4, 4) that most of the pairs agree with, and how far it moves them (median);
    None where too few agree."""
    well = np.flatnonzero(pairs.sigma_m <= MAX_SIGMA_M)
    if len(well) < MIN_PAIRS:
        return None
    zero = pairs.a[well].mean(0)  # UTM coordinates would cost digits
    a, b = pairs.a - zero, pairs.b - zero
    start = _consensus(a[well], b[well])
    if start.sum() < max(MIN_PAIRS, MIN_SHARE * len(well)):
        return None
    T = _rigid(b[well[start]], a[well[start]])
    for _ in range(ROUNDS):
        agrees = mahalanobis2(se3.transform(T, b) - a, pairs.information) <= CHI2_99
        T = _step(T, a[agrees], b[agrees], pairs.information[agrees])
    distance_m = np.median(np.linalg.norm(se3.transform(T, b[agrees]) - b[agrees], axis=-1))
    to_zero, back = (se3.make(np.eye(3), sign * zero) for sign in (-1, 1))
    return back @ T @ to_zero, float(distance_m)


def mahalanobis2(difference: Matrix, information: Matrix) -> NDArray[np.float64]:
    """Squared Mahalanobis distances (N,) of differences (N, 3)."""
    return np.asarray(np.einsum("ni,nij,nj->n", difference, information, difference))


def _consensus(a: Matrix, b: Matrix) -> NDArray[np.bool_]:
    """(N,) pairs that agree with the transform of three pairs that most agree with (RANSAC)."""
    rng = np.random.default_rng(0)
    best, best_cost = np.zeros(len(a), bool), np.inf
    for _ in range(TRIALS):
        sample = rng.choice(len(a), 3, replace=False)
        errors_m = np.linalg.norm(se3.transform(_rigid(b[sample], a[sample]), b) - a, axis=-1)
        cost = np.minimum(errors_m, TOLERANCE_M).sum()
        if cost < best_cost:
            best, best_cost = errors_m < TOLERANCE_M, cost
    return best


def _rigid(source: Matrix, target: Matrix) -> Matrix:
    """T_target_source (4, 4) in least squares over pairs (N, 3); Kabsch, Acta Cryst. 1976."""
    mean_source, mean_target = source.mean(0), target.mean(0)
    U, _, Vt = np.linalg.svd((target - mean_target).T @ (source - mean_source))
    R = (U * [1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    return se3.make(R, mean_target - R @ mean_source)


def _step(T: Matrix, a: Matrix, b: Matrix, information: Matrix) -> Matrix:
    """One Gauss-Newton step of a pose (4, 4) that brings b onto a."""
    moved = se3.transform(T, b)
    J = np.zeros((len(a), 3, 6))
    J[:, :, :3] = np.eye(3)
    J[:, :, 3:] = -skew(moved)
    weighted = J.transpose(0, 2, 1) @ information
    twist = np.linalg.solve((weighted @ J).sum(0), (weighted @ (a - moved)[..., None]).sum(0))[:, 0]
    turn = Rotation.from_rotvec(twist[3:]).as_matrix()
    return se3.make(turn, twist[:3]) @ T
