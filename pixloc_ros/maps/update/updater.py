"""One later drive into a map: the whole story, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from pixloc_ros.common.atomic_write import temporary_folder
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import ViewConfig
from pixloc_ros.config.node import FRAME_SPACING_M
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps import held_queries
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.held_queries import HeldQuery, HeldScore
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.retrieval import most_alike_condition
from pixloc_ros.maps.schema import SessionEntry
from pixloc_ros.maps.update import new_version, versions
from pixloc_ros.maps.update.observations import FrameObservations, observe
from pixloc_ros.maps.update.point_history import PointHistory
from pixloc_ros.maps.verified_frames import DriveSession, VerifiedFrame

HELD_EVERY = 5  # of the verified frames, one is held and never becomes a keyframe
MAX_HELD_PER_SESSION, MAX_HELD = 20, 100
MIN_FRAMES = 5  # of a session
MIN_NOVEL, MIN_NOVEL_SHARE = 50, 0.3  # observations of a keyframe that is worth adding
ERROR_TOLERANCE_M = 0.03  # by which the median error of held queries may grow


Item = TypeVar("Item")
Judge = Callable[[Map, Sequence[HeldQuery]], HeldScore]


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How much of a session becomes part of the map."""

    frame_spacing_m: float = FRAME_SPACING_M  # between frames that are compared with the map
    keyframe_spacing_m: float = 4.0  # between those of them that are added
    max_growth_share: float = 0.2  # observations added by one session, of those of the map
    force: bool = False  # write a version that localizes held queries worse


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What came of an update."""

    session: SessionEntry
    held: int  # queries, of this session and earlier ones
    before: HeldScore
    after: HeldScore


def update_map(
    folder: Path,
    session: DriveSession,
    extractor: FeatureExtractor,
    judge: Judge,
    output: Path | None = None,
    options: UpdateOptions | None = None,
    progress: Progress = silent,
) -> UpdateReport:
    """Make the verified frames of a session part of a map.

    output: for the new version; without, it takes the place of the map, whose old version is kept
    beside it (`versions.undo`). judge: localizes held queries on a version.
    Raises MapError for a session or a map that cannot be used, and for a new version that
    localizes worse; then the map is as it was.
    """
    options = options or UpdateOptions()
    if output is not None:
        output = writer.check_output(output, overwrite=False)
    if len(session.frames) < MIN_FRAMES:
        raise MapError(
            f"{session.name}: {len(session.frames)} of {session.images} images were localized and "
            f"verified, at least {MIN_FRAMES} are needed; the map is as it was"
        )
    map_ = Map.load(folder)
    new_version.check_storage(map_)
    target = output or folder.expanduser().absolute()
    try:
        with temporary_folder(target.with_name(f"{target.name}.update")) as work:
            report = _update(map_, session, extractor, judge, work / "map", options, progress)
            if output is None:
                versions.keep_version(target)
            versions.put(work / "map", target)
    except DataError as error:
        raise MapError(str(error)) from None
    return report


def _update(
    map_: Map,
    session: DriveSession,
    extractor: FeatureExtractor,
    judge: Judge,
    output: Path,
    options: UpdateOptions,
    progress: Progress,
) -> UpdateReport:
    """Write the new version to a folder; raises MapError where it localizes worse."""
    held_frames = _thinned(session.frames[HELD_EVERY // 2 :: HELD_EVERY], MAX_HELD_PER_SESSION)
    held_ids = {id(frame) for frame in held_frames}
    observed = list(observe(map_, session.frames, extractor, options.frame_spacing_m, progress))
    history, held = _known(map_)
    history = history.after(observed, map_.point_id_end)
    gone = history.gone()
    free = [each for each in observed if id(each.frame) not in held_ids]
    keyframes = [_without(each, gone) for each in _keyframes(free, map_, options)]
    held = _thinned([*held, *(_held(frame) for frame in held_frames)], MAX_HELD)
    entry = SessionEntry(
        name=session.name,
        date=datetime.fromtimestamp(session.frames[0].stamp_ns / 1e9, UTC).isoformat(
            "T", "seconds"
        ),
        frames=len(session.frames),
        keyframes=len(keyframes),
        observations=sum(int(each.novel.sum()) for each in keyframes),
        points_added=0,
        points_retired=len(gone),
    )
    arrays = {**history.without(gone).arrays(), **held_queries.arrays_of(held)}
    new_version.write_version(
        map_, keyframes, _condition(map_, observed), gone, entry, arrays, output
    )
    before, after = judge(map_, held), judge(Map.load(output), held)
    report = UpdateReport(entry, len(held), before, after)
    if not options.force:
        _refuse_worse(report)
    return report


def _known(map_: Map) -> tuple[PointHistory, list[HeldQuery]]:
    """What earlier updates have left in the map."""
    arrays = held_queries.read_session_arrays(map_)
    try:
        history = PointHistory.of(arrays)
        if (history.point_id >= map_.point_id_end).any():
            raise IndexError("a point that is not in the map")
        return history, held_queries.queries_of(arrays)
    except (KeyError, IndexError, ValueError) as error:
        name = held_queries.FILE_NAME
        raise MapError(f"{map_.folder / name} is damaged ({error}); copy the map again") from None


def _thinned(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them at most, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _held(frame: VerifiedFrame) -> HeldQuery:
    return HeldQuery.of(frame.read_image(), frame.camera, frame.T_map_base, frame.T_base_cam)


def _keyframes(
    observed: Sequence[FrameObservations], map_: Map, options: UpdateOptions
) -> list[FrameObservations]:
    """Frames worth adding, some way apart, spread over the drive; as many as the map may grow."""
    candidates: list[FrameObservations] = []
    for each in observed:
        far = not candidates or _distance_m(candidates[-1], each) >= options.keyframe_spacing_m
        if far and each.novel.sum() >= max(MIN_NOVEL, MIN_NOVEL_SHARE * len(each.novel)):
            candidates.append(each)
    budget = options.max_growth_share * map_.metadata.observations
    total = sum(int(each.novel.sum()) for each in candidates)
    return _thinned(candidates, int(len(candidates) * min(1.0, budget / max(total, 1))))


def _condition(map_: Map, observed: Sequence[FrameObservations]) -> int:
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
    return float(np.linalg.norm(first.frame.T_map_cam[:3, 3] - second.frame.T_map_cam[:3, 3]))


def _without(each: FrameObservations, gone: np.ndarray) -> FrameObservations:
    return replace(each, novel=each.novel & ~np.isin(each.point_ids, gone))


def _refuse_worse(report: UpdateReport) -> None:
    before, after = report.before, report.after
    worse_m = after.median_error_m - before.median_error_m
    if after.recall < before.recall or worse_m > ERROR_TOLERANCE_M:
        raise MapError(
            f"the update would make the map worse: of {report.held} held queries "
            f"{after.recall:.2f} instead of {before.recall:.2f} are localized, with a median error "
            f"of {100 * after.median_error_m:.1f} cm instead of {100 * before.median_error_m:.1f} "
            f"cm; the map is as it was (--force writes it all the same)"
        )
