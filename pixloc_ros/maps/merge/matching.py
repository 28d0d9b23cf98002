"""Which points of two maps are one: they look alike, and lie in one place in images of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from pixloc_ros.common.progress import Progress
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.merge.placed_map import PlacedMap
from pixloc_ros.maps.serving_keyframes import pose_distances

MAX_DISTANCE_M = 10.0  # between keyframes that are compared
MAX_TURN_DEG = 45.0
PARTNERS = 4  # keyframes of the other map that each one is compared with
SEARCH_M = 3.0  # how far apart the same point may be in two maps that are off
ALIKE = 0.6  # cosine of features, the mean of all levels, of one point in two images
NEAR_PX = 3.0  # in both images together, of one point in two maps that agree


@dataclass(frozen=True, slots=True)
class KeyframePair:
    """Keyframes of two maps that look at the same place."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class PointPairs:
    """Points (N,) of two maps, by id, each in one pair at most."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    votes: NDArray[np.int64]  # pairs of keyframes in which they were matched

    def __len__(self) -> int:
        return len(self.first)


Matcher = Callable[[PlacedMap, PlacedMap, KeyframePair], tuple[NDArray[np.intp], NDArray[np.intp]]]


def keyframe_pairs(first: PlacedMap, second: PlacedMap) -> list[KeyframePair]:
    """Each keyframe of the second map with those of the first that are near and look its way."""
    pairs = []
    for k, T_new_cam in enumerate(second.T_new_cam):
        near = np.array(
            first.places.query_ball_point(T_new_cam[:3, 3], MAX_DISTANCE_M, return_sorted=True),
            np.intp,
        )
        distances, angles_rad = pose_distances(T_new_cam, first.T_new_cam[near])
        usable = angles_rad <= np.deg2rad(MAX_TURN_DEG)
        best = np.argsort(distances[usable], kind="stable")[:PARTNERS]
        pairs += [KeyframePair(int(i), k) for i in near[usable][best]]
    return pairs


def match_by_features(
    first: PlacedMap, second: PlacedMap, pairs: list[KeyframePair], progress: Progress
) -> PointPairs:
    """Points that look more alike than others do, wherever they are within SEARCH_M."""
    return _matched(first, second, pairs, _alike, progress)


def match_by_place(
    first: PlacedMap, second: PlacedMap, pairs: list[KeyframePair], progress: Progress
) -> PointPairs:
    """Points that lie in one place in both images of a pair of keyframes, and look alike."""
    return _matched(first, second, pairs, _in_one_place, progress)


def _matched(
    first: PlacedMap,
    second: PlacedMap,
    pairs: list[KeyframePair],
    matcher: Matcher,
    progress: Progress,
) -> PointPairs:
    """The matches of all pairs of keyframes, each point with the one it was matched with most."""
    found: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
    text = f"Comparing {second.name} with {first.name}"
    for pair in progress(pairs, text, len(pairs)):
        a, b = matcher(first, second, pair)
        ids = first.seen_by(pair.first)[a], second.seen_by(pair.second)[b]
        found.append(np.stack(ids, -1).astype(np.int64))
    matches, votes = np.unique(np.concatenate(found), axis=0, return_counts=True)
    mutual = _most_voted(matches[:, 0], votes) & _most_voted(matches[:, 1], votes)
    ids_first, ids_second = matches[mutual].astype(np.int32).T
    return PointPairs(ids_first, ids_second, votes[mutual])


def _most_voted(ids: NDArray[np.int64], votes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) which match of each id has the most votes; the first of equal ones."""
    order = np.lexsort((-votes, ids))
    best = np.zeros(len(ids), bool)
    best[order[np.diff(ids[order], prepend=-1) > 0]] = True
    return best


def _alike(
    first: PlacedMap, second: PlacedMap, pair: KeyframePair
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    points = (
        first.points[first.seen_by(pair.first)],
        second.points[second.seen_by(pair.second)],
    )
    cosine = first.features(pair.first) @ second.features(pair.second).T
    cosine[cdist(*points) > SEARCH_M] = -1
    if not cosine.size:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    best = cosine.argmax(1)
    a = np.arange(len(best))
    mutual = (cosine.argmax(0)[best] == a) & (cosine[a, best] >= ALIKE)
    return a[mutual], best[mutual]


def _in_one_place(
    first: PlacedMap, second: PlacedMap, pair: KeyframePair
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    a, pixels_a = _in_both(first, second, pair, first.points[first.seen_by(pair.first)])
    b, pixels_b = _in_both(first, second, pair, second.points[second.seen_by(pair.second)])
    if not len(a) or not len(b):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    tree_a, tree_b = KDTree(pixels_a), KDTree(pixels_b)
    distance_px, nearest = tree_b.query(pixels_a, distance_upper_bound=NEAR_PX)
    i = np.flatnonzero(np.isfinite(distance_px))
    i = i[tree_a.query(pixels_b[nearest[i]])[1] == i]
    a, b = a[i], b[nearest[i]]
    cosine = (first.features(pair.first)[a] * second.features(pair.second)[b]).sum(-1)
    return a[cosine >= ALIKE], b[cosine >= ALIKE]


def _in_both(
    first: PlacedMap, second: PlacedMap, pair: KeyframePair, points: Matrix
) -> tuple[NDArray[np.intp], Matrix]:
    """Indices of the points (N, 3) that both keyframes have in view, and their pixels (M, 4)."""
    pixels_first, in_first = first.pixels(pair.first, points)
    pixels_second, in_second = second.pixels(pair.second, points)
    index = np.flatnonzero(in_first & in_second)
    return index, np.concatenate([pixels_first, pixels_second], -1)[index]
