"""Which frames of a session become keyframes of a map, and what they store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import ViewConfig
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.retrieval import most_alike_condition
from pixloc_ros.maps.update.new_points import NewPoints
from pixloc_ros.maps.update.observations import FrameObservations, project
from pixloc_ros.maps.update.options import UpdateOptions
from pixloc_ros.maps.verified_frames import VerifiedFrame

MIN_NOVEL, MIN_NOVEL_SHARE = 50, 0.3  # observations of a keyframe that is worth adding
MIN_NEW_POINTS = 30  # of a keyframe that is added for them

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class AddedKeyframe:
    """A frame that becomes a keyframe, with the observations (N,) that are stored."""

    frame: VerifiedFrame
    descriptor: NDArray[np.float32]  # (D,)
    condition: int
    point_ids: NDArray[np.int32]
    features: tuple[NDArray[np.float32], ...]  # (N, C) coarse to fine
    confidences: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(
        cls, each: FrameObservations, stored: NDArray[np.bool_], condition: int
    ) -> AddedKeyframe:
        """With some of the observations of the map's points."""
        return cls(
            each.frame,
            each.descriptor,
            condition,
            each.point_ids[stored],
            tuple(feature[stored] for feature in each.features),
            tuple(confidence[stored] for confidence in each.confidences),
        )

    def with_points(
        self, point_ids: NDArray[np.int32], points_map: Matrix, extractor: FeatureExtractor
    ) -> AddedKeyframe:
        """The same with observations of more points (M,), (M, 3), that it has in view."""
        pyramid = extractor.extract(self.frame.read_image())
        pixels, _ = project(points_map, self.frame)
        sampled = pyramid.sample(pixels.to(pyramid.levels[0].rows))
        features = [feature.cpu().numpy() for feature, _, _ in sampled]
        confidences = [(c * valid).cpu().numpy() for _, c, valid in sampled]
        return replace(
            self,
            point_ids=np.concatenate([self.point_ids, point_ids]),
            features=_concatenated(self.features, features),
            confidences=_concatenated(self.confidences, confidences),
        )


def _concatenated(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], ...]:
    return tuple(np.concatenate(both) for both in zip(first, second, strict=True))


def added_keyframes(
    free: Sequence[FrameObservations],
    map_: Map,
    new: NewPoints,
    condition: int,
    extractor: FeatureExtractor,
    options: UpdateOptions,
) -> list[AddedKeyframe]:
    """The frames that become keyframes, in the order of the drive.

    Those that look different from the map, with their novel observations, in the session's
    condition; and those that see new points. Where these are most of what a frame sees, the map was
    blind: such keyframes serve all conditions, as those of the build do, with all that they see.
    """
    novel = {id(each.frame) for each in _novel(free, map_, options)}
    visible = _visible_points(new, map_, options)
    added = []
    for each in free:
        points = visible.get(id(each.frame))
        if points is None and id(each.frame) not in novel:
            continue
        if points is None:
            added.append(AddedKeyframe.of(each, each.novel, condition))
            continue
        blind = len(points) > each.present.sum()
        stored = each.present if blind else each.novel
        keyframe = AddedKeyframe.of(each, stored, 0 if blind else condition)
        ids = (new.first_id + points).astype(np.int32)
        added.append(keyframe.with_points(ids, new.points_map[points], extractor))
    return added


def _novel(
    free: Sequence[FrameObservations], map_: Map, options: UpdateOptions
) -> list[FrameObservations]:
    """Frames that look different, some way apart, spread over the drive; as many as the map may
    grow."""
    candidates: list[FrameObservations] = []
    for each in free:
        far = not candidates or _distance_m(candidates[-1], each) >= options.keyframe_spacing_m
        if far and each.novel.sum() >= max(MIN_NOVEL, MIN_NOVEL_SHARE * len(each.novel)):
            candidates.append(each)
    total = sum(int(each.novel.sum()) for each in candidates)
    return _within(options.max_growth_share * map_.metadata.observations, total, candidates)


def _visible_points(
    new: NewPoints, map_: Map, options: UpdateOptions
) -> dict[int, NDArray[np.intp]]:
    """By identity of frames, some way apart, the new points that they see; as many as the map may
    grow."""
    chosen: list[int] = []
    for i, (each, visible) in enumerate(zip(new.frames, new.visible, strict=True)):
        if len(visible) >= MIN_NEW_POINTS and (
            not chosen
            or _distance_m(new.frames[chosen[-1]], each) >= options.new_keyframe_spacing_m
        ):
            chosen.append(i)
    total = sum(len(new.visible[i]) + int(new.frames[i].present.sum()) for i in chosen)
    chosen = _within(options.max_new_share * map_.metadata.observations, total, chosen)
    return {id(new.frames[i].frame): new.visible[i] for i in chosen}


def _within(budget: float, total: int, items: list[Item]) -> list[Item]:
    """As many of some items, evenly spread, as a budget allows that all of them need a total of."""
    return thinned(items, int(len(items) * min(1.0, budget / max(total, 1))))


def thinned(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them at most, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def condition_of(map_: Map, observed: Sequence[FrameObservations]) -> int:
    """The condition that queries of this session would choose: an added one, or else a new one."""
    if map_.keyframe_condition is None:
        return 1
    radius_m = ViewConfig().condition_radius_m
    chosen = [
        most_alike_condition(map_, each.descriptor, each.frame.T_map_cam[:3, 3], radius_m)
        for each in observed
    ]
    votes = np.bincount(chosen)
    most = int(votes.argmax())
    alike = most > 0 and votes[most] > len(chosen) / 2
    return most if alike else int(map_.keyframe_condition.max()) + 1


def _distance_m(first: FrameObservations, second: FrameObservations) -> float:
    return se3.distance_m(first.frame.T_map_cam, second.frame.T_map_cam)
