"""How far a map is off another one where they overlap, keyframe by keyframe, and how it is brought
onto it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pnp import MAX_ERROR_PX, solve_pnp
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.tracks import DistinctCameras, JoinedTracks
from pixloc_ros.maps.merge.matching import PointPairs
from pixloc_ros.maps.merge.placed_map import PlacedMap

MIN_INLIERS, MIN_SHARE = 20, 0.25  # of a keyframe's pairs of points, that agree with a pose
SAME_SHARE = 0.9  # of these, that agree with where the keyframe is: it is not off
SMOOTHED, SMOOTH_M = 8, 4.0  # offsets that count at a place, and at what distance less (1/e)


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where keyframes (N,) of the second map are by the points of the first, in its frame."""

    keyframe: NDArray[np.intp]
    T_new_cam: Matrix  # (N, 4, 4)
    distance_m: NDArray[np.float64]  # (N,) from where they were
    angle_deg: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keyframe)

    @property
    def median_m(self) -> float:
        """Distance between the maps, over the keyframes where it is known; 0 where nowhere."""
        return float(np.median(self.distance_m)) if len(self) else 0.0

    @property
    def largest_m(self) -> float:
        return float(self.distance_m.max(initial=0.0))


def find_offsets(first: PlacedMap, second: PlacedMap, pairs: PointPairs) -> Offsets:
    """Solve PnP for each keyframe of the second map: the pixels of its points meet those of the
    first map that they were paired with. A keyframe that about as many of them agree with where it
    is stays there; left out is one that too few agree with."""
    row = np.full(len(second.points), -1)
    row[pairs.second] = np.arange(len(pairs))
    found = []
    for keyframe, ids in second.observed():
        ids = ids[row[ids] >= 0]
        pixels, _ = second.pixels(keyframe, second.points[ids])
        points = first.points[pairs.first[row[ids]]]
        pose = solve_pnp(points, pixels, second.camera(keyframe))
        if pose is None or len(pose.inliers) < max(MIN_INLIERS, MIN_SHARE * len(ids)):
            continue
        errors_px = np.linalg.norm(second.pixels(keyframe, points)[0] - pixels, axis=-1)
        stays = (errors_px <= MAX_ERROR_PX).sum() >= SAME_SHARE * len(pose.inliers)
        found.append((keyframe, second.T_new_cam[keyframe] if stays else pose.T_map_cam))
    keyframes = np.array([keyframe for keyframe, _ in found], np.intp)
    T_new_cam = np.array([pose for _, pose in found]).reshape(-1, 4, 4)
    moves = list(zip(second.T_new_cam[keyframes], T_new_cam, strict=True))
    return Offsets(
        keyframe=keyframes,
        T_new_cam=T_new_cam,
        distance_m=np.array([se3.distance_m(*move) for move in moves]),
        angle_deg=np.array([se3.angle_deg(*move) for move in moves]),
    )


def aligned(second: PlacedMap, offsets: Offsets) -> PlacedMap:
    """The second map brought onto the first: keyframes where the first map has them, or moved as
    those around them are, and points triangulated anew from there."""
    before = second.T_new_cam[offsets.keyframe]
    moves = offsets.T_new_cam @ se3.inverse(before)
    T = _smooth(second.T_new_cam[:, :3, 3], before[:, :3, 3], moves)
    T_new_cam = T @ second.T_new_cam
    T_new_cam[offsets.keyframe] = offsets.T_new_cam
    sums = np.zeros_like(second.points)
    for keyframe, ids in second.observed():
        sums[ids] += se3.transform(T[keyframe], second.points[ids])
    start = sums / np.maximum(second.track_length, 1)[:, None]
    start[second.track_length == 0] = np.nan
    return second.moved(T_new_cam, _triangulated(second, T_new_cam, start))


def _triangulated(before: PlacedMap, T_new_cam: Matrix, start: Matrix) -> Matrix:
    """Points (P, 3) adjusted to keyframes (K, 4, 4) that see them where they did before."""
    order = np.argsort(before.point, kind="stable")
    seen, point = np.unique(before.point[order], return_inverse=True)
    pixels = [before.pixels(keyframe, before.points[ids])[0] for keyframe, ids in before.observed()]
    tracks = JoinedTracks(
        image=before.keyframe[order].astype(np.int64),
        point=point,
        pixels=np.concatenate(pixels)[order],
        points=start[seen],
        cameras=DistinctCameras.of([before.camera(k) for k in range(len(T_new_cam))]),
    )
    points = start.copy()
    points[seen] = tracks.adjusted(T_new_cam).points
    return points


def _smooth(places: Matrix, known: Matrix, moves: Matrix) -> Matrix:
    """Transforms (K, 4, 4) for places (K, 3): means of those (N, 4, 4) known at places (N, 3)
    around."""
    count = min(SMOOTHED, len(known))
    distances_m, nearest = KDTree(known).query(places, np.arange(1, count + 1))
    weights = np.exp((distances_m[:, :1] - distances_m) / SMOOTH_M)
    weights /= weights.sum(1, keepdims=True)
    result = np.empty((len(places), 4, 4))
    for k, place in enumerate(places):
        T = moves[nearest[k]]
        turn = Rotation.from_matrix(T[:, :3, :3]).mean(weights[k]).as_matrix()
        moved = weights[k] @ (T[:, :3, :3] @ place + T[:, :3, 3])
        result[k] = se3.make(turn, moved - turn @ place)
    return result
