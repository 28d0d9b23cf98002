"""Points of several maps that become one: under one id, at one place, with the observations of
all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.builder import HALF_TRACK
from pixloc_ros.maps.build.tracks import sums
from pixloc_ros.maps.feature_store import Arrays, covisibility
from pixloc_ros.maps.merge.placed_map import PlacedMap
from pixloc_ros.maps.observation_choice import viewpoint_change
from pixloc_ros.maps.tiles import Tile

CHI2_99 = 11.3  # of three numbers, 99 % are below
MAX_SHIFT_PX = 1.0  # by which a point may leave its place in any of its images
MAX_OBSERVATIONS = 16  # of a joined point; of more, those from the most different viewpoints


@dataclass(frozen=True, slots=True)
class MergedPoints:
    """The points of the new map. Arrays over points (P,) are indexed by the ids that all points
    would have if none were joined."""

    id: NDArray[np.int32]  # (P,) in the new map: of a joined point the least of its ids
    points: Matrix  # (P, 3)
    error_px: NDArray[np.float32]
    priority: NDArray[np.float32]
    depth_sigma: NDArray[np.float32]
    joined: NDArray[np.bool_]  # (P,)
    dropped: NDArray[np.int64]  # observations that are left out: keyframe * P + id, ascending

    @property
    def count(self) -> int:
        """Points of the new map that several maps had."""
        return len(np.unique(self.id[self.joined]))

    def applied(self, tile: Tile) -> Tile:
        """A tile whose points are not joined yet, with those of the new map."""
        keyframe = np.repeat(tile.keyframes, np.diff(tile.observation_offsets)).astype(np.int64)
        observed = keyframe * len(self.id) + tile.point_id[tile.observation_point]
        dropped = np.isin(observed, self.dropped)
        if dropped.any():
            tile = tile.observing(~dropped).part(tile.keyframes)
        ids = self.id[tile.point_id]
        return replace(
            tile,
            point_id=ids,
            points=self.points[ids] - tile.origin,
            point_error_px=self.error_px[ids],
            point_priority=self.priority[ids],
            point_depth_sigma=self.depth_sigma[ids],
        )

    def covisibility(self, maps: Sequence[PlacedMap]) -> Arrays:
        """Of all keyframes, by the points that they share now."""
        keyframe, point = observations(maps)
        kept = ~np.isin(keyframe * len(self.id) + point, self.dropped)
        counts = np.bincount(keyframe[kept], minlength=sum(len(m.T_new_cam) for m in maps))
        return covisibility(np.concatenate([[0], np.cumsum(counts)]), self.id[point[kept]])


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Points that may be one: member[i] is a point of group[i]; groups are 0..G-1."""

    member: NDArray[np.int64]
    group: NDArray[np.int64]

    def sums(self, values: NDArray) -> NDArray:
        """Sums by group of values of the members."""
        return sums(self.group, values, self.group.max(initial=-1) + 1)


def first_ids(maps: Sequence[PlacedMap]) -> NDArray[np.int64]:
    """The id that point 0 of each map gets where none are joined, and above all of them."""
    return np.cumsum([0, *(len(m.points) for m in maps)])


def observations(maps: Sequence[PlacedMap]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keyframe and point of all observations (O,), counted over all maps; keyframes ascend."""
    first_keyframe = np.cumsum([0, *(len(m.T_new_cam) for m in maps)])
    each = zip(maps, first_keyframe[:-1], first_ids(maps)[:-1], strict=True)
    pairs = [(m.keyframe + keyframe, m.point + point) for m, keyframe, point in each]
    keyframes, points = zip(*pairs, strict=True)
    return np.concatenate(keyframes).astype(np.int64), np.concatenate(points).astype(np.int64)


def join_points(maps: Sequence[PlacedMap], edges: NDArray[np.int64]) -> MergedPoints:
    """Join points that are one as far as all their images tell.

    edges: (E, 2) ids of matched points, counted over all maps; the surest come first.
    """
    candidates = _groups(edges, first_ids(maps))
    points = np.concatenate([m.points for m in maps])
    information = np.concatenate([m.information for m in maps])
    places = _weighted_places(candidates, points, information)
    fits = _fits(candidates, points, information, places) & _stays(candidates, maps, places)
    return _joined(candidates, fits, places, maps)


def _groups(edges: NDArray[np.int64], first_id: NDArray[np.int64]) -> _Candidates:
    """Points that edges connect, but never two points of one map."""
    source = np.searchsorted(first_id, edges, side="right")
    members: dict[int, list[tuple[int, int]]] = {}  # of the group of each point: map and id
    for (a, b), (map_a, map_b) in zip(edges.tolist(), source.tolist(), strict=True):
        group_a = members.setdefault(a, [(map_a, a)])
        group_b = members.setdefault(b, [(map_b, b)])
        if group_a is group_b or {m for m, _ in group_a} & {m for m, _ in group_b}:
            continue
        group_a += group_b
        for _, id_ in group_b:
            members[id_] = group_a
    groups = {id(group): group for group in members.values() if len(group) > 1}.values()
    ids = [sorted(id_ for _, id_ in group) for group in groups]
    return _Candidates(
        member=np.array([id_ for group in ids for id_ in group], np.int64),
        group=np.repeat(np.arange(len(ids)), [len(group) for group in ids]),
    )


def _weighted_places(candidates: _Candidates, points: Matrix, information: Matrix) -> Matrix:
    """(G, 3) the mean of each group's points, weighted by what their images tell."""
    member = candidates.member
    zero = points[member].mean(0) if len(member) else np.zeros(3)
    weighted = (information[member] @ (points[member] - zero)[..., None])[..., 0]
    total = candidates.sums(information[member])
    return np.linalg.solve(total, candidates.sums(weighted)[..., None])[..., 0] + zero


def _fits(
    candidates: _Candidates, points: Matrix, information: Matrix, places: Matrix
) -> NDArray[np.bool_]:
    """(G,) whether the points of a group differ as little as their images leave open."""
    member, group = candidates.member, candidates.group
    difference = points[member] - places[group]
    squared = np.einsum("ni,nij,nj->n", difference, information[member], difference)
    others = np.bincount(group, minlength=len(places)) - 1
    return np.asarray(candidates.sums(squared) <= CHI2_99 * others)


def _stays(candidates: _Candidates, maps: Sequence[PlacedMap], places: Matrix) -> NDArray[np.bool_]:
    """(G,) whether a group's place is, in all images of its points, where these are."""
    stays = np.ones(len(places), bool)
    first = first_ids(maps)
    group_of = np.full(first[-1], -1)
    group_of[candidates.member] = candidates.group
    for map_, first_id in zip(maps, first[:-1].tolist(), strict=True):
        for keyframe, ids in map_.observed():
            group = group_of[ids + first_id]
            ids, group = ids[group >= 0], group[group >= 0]
            before, _ = map_.pixels(keyframe, map_.points[ids])
            after, _ = map_.pixels(keyframe, places[group])
            stays[group[np.linalg.norm(after - before, axis=-1) > MAX_SHIFT_PX]] = False
    return stays


def _joined(
    candidates: _Candidates, fits: NDArray[np.bool_], places: Matrix, maps: Sequence[PlacedMap]
) -> MergedPoints:
    kept = fits[candidates.group]
    _, group = np.unique(candidates.group[kept], return_inverse=True)
    chosen = _Candidates(candidates.member[kept], group)
    count = np.concatenate([m.track_length for m in maps])[chosen.member].astype(np.float64)
    error_px = np.concatenate([m.error_px for m in maps])
    priority = np.concatenate([m.priority for m in maps])
    points = np.concatenate([m.points for m in maps])
    ids = np.arange(len(points), dtype=np.int32)
    first = np.flatnonzero(np.diff(group, prepend=-1) > 0)  # members of a group ascend
    lead = chosen.member[first]
    ids[chosen.member] = lead[group]
    points[lead] = places[fits]
    known = count * (error_px[chosen.member] >= 0)
    total, known_total = chosen.sums(count), chosen.sums(known)
    errors = chosen.sums(known * error_px[chosen.member]) / np.maximum(known_total, 1)
    error_px[lead] = np.where(known_total > 0, errors, -1)
    confidence = chosen.sums(priority[chosen.member] * (count + HALF_TRACK))
    priority[lead] = confidence / (total + HALF_TRACK)
    sigma = np.concatenate([m.depth_sigma for m in maps])
    member_sigma = sigma[chosen.member]
    information = chosen.sums(np.where(member_sigma > 0, member_sigma, np.inf) ** -2.0)
    sigma[lead] = np.where(information > 0, information, np.inf) ** -0.5
    joined = np.zeros(len(ids), bool)
    joined[chosen.member] = True
    return MergedPoints(
        id=ids,
        points=points,
        error_px=error_px,
        priority=priority,
        depth_sigma=sigma,
        joined=joined,
        dropped=_surplus(ids, points, joined, maps),
    )


def _surplus(
    ids: NDArray[np.int32], points: Matrix, joined: NDArray[np.bool_], maps: Sequence[PlacedMap]
) -> NDArray[np.int64]:
    """Observations of joined points beyond MAX_OBSERVATIONS, those from the most alike viewpoints:
    keyframe * P + id, ascending."""
    keyframe, point = observations(maps)
    of_joined = np.flatnonzero(joined[point])
    keyframe, point = keyframe[of_joined], point[of_joined]
    order = np.argsort(ids[point], kind="stable")
    keyframe, point = keyframe[order], point[order]
    places = np.concatenate([m.T_new_cam[:, :3, 3] for m in maps])
    starts = np.flatnonzero(np.diff(ids[point], prepend=-1) > 0)
    dropped: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for one in np.split(np.arange(len(point)), starts[1:]):
        if len(one) > MAX_OBSERVATIONS:
            rays = points[ids[point[one[0]]]] - places[keyframe[one]]
            left_out = np.delete(one, most_different(rays, MAX_OBSERVATIONS))
            dropped.append(keyframe[left_out] * len(ids) + point[left_out])
    return np.sort(np.concatenate(dropped))


def most_different(rays: Matrix, count: int) -> NDArray[np.intp]:
    """Indices of so many rays (N, 3) from keyframes to a point, spread over what there is.

    The nearest keyframe comes first, then always the one that differs most from all chosen.
    """
    lengths_m = np.linalg.norm(rays, axis=-1)
    directions = rays / lengths_m[:, None]
    unlike = viewpoint_change(directions @ directions.T, (lengths_m[:, None] / lengths_m) ** 2)
    chosen = [int(lengths_m.argmin())]
    least = unlike[chosen[0]].copy()
    while len(chosen) < min(count, len(rays)):
        chosen.append(int(least.argmax()))
        least = np.minimum(least, unlike[chosen[-1]])
    return np.array(chosen, np.intp)


def edges_of(matched: Iterable[tuple[int, int, NDArray, NDArray, NDArray]]) -> NDArray[np.int64]:
    """(E, 2) ids counted over all maps, those with the most votes first.

    matched: first id of two maps, ids (N,) in each, votes (N,).
    """
    columns: list[NDArray[np.int64]] = [np.zeros((0, 3), np.int64)]
    for first_a, first_b, a, b, votes in matched:
        pairs = (a.astype(np.int64) + first_a, b.astype(np.int64) + first_b, votes)
        columns.append(np.stack(pairs, -1))
    all_ = np.concatenate(columns)
    return np.asarray(all_[np.argsort(-all_[:, 2], kind="stable"), :2])
