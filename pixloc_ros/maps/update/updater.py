"""One later drive into a map: the whole story, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pixloc_ros.common.atomic_write import temporary_folder
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps import held_queries
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.held_queries import HeldComparison, HeldQuery, Judge
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import SessionEntry
from pixloc_ros.maps.update import new_version, versions
from pixloc_ros.maps.update.keyframes import AddedKeyframe, added_keyframes, condition_of, thinned
from pixloc_ros.maps.update.new_points import NewPoints, find_new_points
from pixloc_ros.maps.update.observations import FrameObservations, observe
from pixloc_ros.maps.update.options import UpdateOptions
from pixloc_ros.maps.update.point_history import PointHistory
from pixloc_ros.maps.verified_frames import DriveSession, VerifiedFrame

HELD_EVERY = 5  # of the verified frames, one is held and never becomes a keyframe
MAX_HELD_PER_SESSION, MAX_HELD = 20, 100
MIN_FRAMES = 5  # of a session


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What came of an update."""

    session: SessionEntry
    held: HeldComparison  # of this session's queries and of earlier ones


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
            report = _update(map_, session, extractor, judge, work, options, progress)
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
    work: Path,
    options: UpdateOptions,
    progress: Progress,
) -> UpdateReport:
    """Write the new version to work/map; raises MapError where it localizes worse."""
    held_frames = thinned(session.frames[HELD_EVERY // 2 :: HELD_EVERY], MAX_HELD_PER_SESSION)
    held_ids = {id(frame) for frame in held_frames}
    observed = list(observe(map_, session.frames, extractor, options.frame_spacing_m, progress))
    history, held = _known(map_)
    history = history.after(observed, map_.point_id_end)
    gone = history.gone()
    free = [_without(each, gone) for each in observed if id(each.frame) not in held_ids]
    condition = condition_of(map_, observed)
    new = NewPoints.none(map_.point_id_end)
    if options.new_points:
        first_id = map_.point_id_end
        new = find_new_points(free, first_id, work, progress, session.localized)
    keyframes = added_keyframes(free, map_, new, condition, extractor, options)
    held = thinned([*held, *(_held(frame) for frame in held_frames)], MAX_HELD)
    entry = SessionEntry(
        name=session.name,
        date=datetime.fromtimestamp(session.frames[0].stamp_ns / 1e9, UTC).isoformat(
            "T", "seconds"
        ),
        frames=len(session.frames),
        keyframes=len(keyframes),
        observations=sum(len(each.point_ids) for each in keyframes),
        points_added=_new_points(keyframes, new.first_id),
        points_retired=len(gone),
    )
    arrays = {**history.without(gone).arrays(), **held_queries.arrays_of(held)}
    new_version.write_version(map_, keyframes, new, gone, entry, arrays, work / "map")
    before, after = judge(map_, held), judge(Map.load(work / "map"), held)
    compared = HeldComparison(len(held), before, after)
    if not options.force:
        compared.refuse_worse(
            "the update would make the map worse",
            "the map is as it was (--force writes it all the same)",
        )
    return UpdateReport(entry, compared)


def _known(map_: Map) -> tuple[PointHistory, list[HeldQuery]]:
    """What earlier updates have left in the map."""
    arrays = held_queries.read_session_arrays(map_)
    try:
        history = PointHistory.of(arrays)
        if (history.point_id >= map_.point_id_end).any():
            raise IndexError("a point that is not in the map")
        return history, held_queries.queries_of(arrays)
    except (KeyError, IndexError, ValueError) as error:
        path = map_.source.path(held_queries.FILE_NAME)
        raise MapError(f"{path} is damaged ({error}); copy the map again") from None


def _held(frame: VerifiedFrame) -> HeldQuery:
    return HeldQuery.of(frame.read_image(), frame.camera, frame.T_map_base, frame.T_base_cam)


def _without(each: FrameObservations, gone: np.ndarray) -> FrameObservations:
    left = ~np.isin(each.point_ids, gone)
    return replace(each, novel=each.novel & left, present=each.present & left)


def _new_points(keyframes: Sequence[AddedKeyframe], first_id: int) -> int:
    ids = np.concatenate([np.zeros(0, np.int32), *(each.point_ids for each in keyframes)])
    return len(np.unique(ids[ids >= first_id]))
