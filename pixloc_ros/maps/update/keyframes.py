"""Which frames of a session become keyframes of a map, and what they store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

MIN_NOVEL, MIN_NOVEL_SHARE = 50, 0.1  # observations of a keyframe that is worth adding
MIN_NOVEL_SHARE_COVERED = 0.3  # where the condition has a keyframe already: bounds a map's growth
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

    @classmethod
    def adjusted(
        cls,
        each: FrameObservations,
        T_map_cam: Matrix,
        point_ids: NDArray[np.int32],
        points_map: Matrix,
        condition: int,
        extractor: FeatureExtractor,
    ) -> AddedKeyframe:
        """With points (N,), (N, 3) that it sees from an adjusted pose."""
        frame = each.frame.moved(T_map_cam)
        pyramid = extractor.extract(frame.read_image())
        pixels, _ = project(points_map, frame)
        sampled = pyramid.sample(pixels.to(pyramid.levels[0].rows))
        return cls(
            frame,
            each.descriptor,
            condition,
            point_ids,
            tuple(feature.cpu().numpy() for feature, _, _ in sampled),
            tuple((c * valid).cpu().numpy() for _, c, valid in sampled),
        )


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
    novel = {id(each) for each in _novel(free, map_, condition, options)}
    chosen = {id(new.frames[i]): i for i in _frames_of_new_points(new, map_, options)}
    added = []
    for each in free:
        if (i := chosen.get(id(each))) is not None:
            added.append(_with_new_points(new, i, condition, extractor))
        elif id(each) in novel:
            added.append(AddedKeyframe.of(each, each.novel, condition))
    return added


def _with_new_points(
    new: NewPoints, index: int, condition: int, extractor: FeatureExtractor
) -> AddedKeyframe:
    each, points = new.frames[index], new.visible[index]
    blind = len(points) > each.present.sum()
    known = each.present if blind else each.novel
    return AddedKeyframe.adjusted(
        each,
        new.T_map_cam[index],
        np.concatenate([each.point_ids[known], new.first_id + points]).astype(np.int32),
        np.concatenate([each.points_map[known], new.points_map[points]]),
        0 if blind else condition,
        extractor,
    )


def _novel(
    free: Sequence[FrameObservations], map_: Map, condition: int, options: UpdateOptions
) -> list[FrameObservations]:
    """Frames that look different, some way apart, spread over the drive; as many as the map may
    grow. Where the map has keyframes of the condition, they must look more different."""
    covered_m = _positions_m(map_, condition)
    candidates: list[FrameObservations] = []
    for each in free:
        far = not candidates or _distance_m(candidates[-1], each) >= options.keyframe_spacing_m
        distance_m = np.linalg.norm(covered_m - each.frame.T_map_cam[:3, 3], axis=1)
        covered = (distance_m < options.keyframe_spacing_m).any()
        share = MIN_NOVEL_SHARE_COVERED if covered else MIN_NOVEL_SHARE
        if far and each.novel.sum() >= max(MIN_NOVEL, share * len(each.novel)):
            candidates.append(each)
    total = sum(int(each.novel.sum()) for each in candidates)
    return _within(options.max_growth_share * map_.metadata.observations, total, candidates)


def _positions_m(map_: Map, condition: int) -> Matrix:
    """Of the keyframes (K, 3) that an added condition has."""
    if map_.keyframe_condition is None:
        return np.zeros((0, 3))
    return map_.keyframe_T_map_cam[map_.keyframe_condition == condition, :3, 3]


def _frames_of_new_points(new: NewPoints, map_: Map, options: UpdateOptions) -> list[int]:
    """Indices of frames, some way apart, that see new points; as many as the map may grow."""
    chosen: list[int] = []
    for i, (each, visible) in enumerate(zip(new.frames, new.visible, strict=True)):
        if len(visible) >= MIN_NEW_POINTS and (
            not chosen
            or _distance_m(new.frames[chosen[-1]], each) >= options.new_keyframe_spacing_m
        ):
            chosen.append(i)
    total = sum(len(new.visible[i]) + int(new.frames[i].present.sum()) for i in chosen)
    return _within(options.max_new_share * map_.metadata.observations, total, chosen)


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
