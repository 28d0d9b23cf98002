"""`pixloc map update`: what a later drive saw becomes part of a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.maps.update import versions
from pixloc_ros.maps.update.options import UpdateOptions
from pixloc_ros.maps.update.updater import MIN_FRAMES, UpdateReport, update_map
from pixloc_ros.maps.verified_frames import DriveSession
from pixloc_ros.sensors.topics import Topics

DEFAULT = UpdateOptions()


@dataclass(frozen=True, slots=True)
class GrowthOptions:
    """How much of a drive becomes part of the map."""

    spacing: Annotated[
        float, typer.Option(min=0.1, help="metres between added keyframes, at least")
    ] = DEFAULT.keyframe_spacing_m
    frame_spacing: Annotated[
        float, typer.Option(min=0.01, help="metres between frames that are compared with the map")
    ] = DEFAULT.frame_spacing_m
    max_growth: Annotated[
        float, typer.Option(min=0.0, help="share of the map's observations that may be added")
    ] = DEFAULT.max_growth_share
    new_points: Annotated[
        bool, typer.Option(help="triangulate points where the map has none; needs pycolmap")
    ] = DEFAULT.new_points
    max_new: Annotated[
        float, typer.Option(min=0.0, help="the same as --max-growth, of keyframes with new points")
    ] = DEFAULT.max_new_share
    force: Annotated[
        bool, typer.Option("--force", help="write a version that localizes held queries worse")
    ] = False

    def options(self) -> UpdateOptions:
        """Return them by the names of the library."""
        return UpdateOptions(
            frame_spacing_m=self.frame_spacing,
            keyframe_spacing_m=self.spacing,
            max_growth_share=self.max_growth,
            new_points=self.new_points,
            max_new_share=self.max_new,
            force=self.force,
        )


@option_groups
def update(
    folder: Annotated[Path, typer.Argument(metavar="MAP", help="map folder")],
    bag: Annotated[
        Path | None, typer.Option(help="later drive: rosbag2 folder, .mcap or .db3 file")
    ] = None,
    session: Annotated[
        list[Path] | None,
        typer.Option(help="session folder that a node or a replay has recorded; repeatable"),
    ] = None,
    posed: Annotated[
        Path | None,
        typer.Option(help="instead of a bag: meta.json of images whose poses on the map are known"),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="with --posed: folder of the images")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="map folder to write; without, MAP is updated and its old version kept"),
    ] = None,
    *,
    growth: GrowthOptions,
    undo: Annotated[
        bool, typer.Option("--undo", help="put the version before the last update back")
    ] = False,
    topic: Annotated[
        list[str] | None, typer.Option(help="part=/topic of the bag; repeatable")
    ] = None,
    settings: SettingsOptions,
) -> None:
    """Make what a later drive saw part of a map: other light and weather in, what has left out.

    Example: pixloc map update my_map --bag later_drive
    """
    if undo:
        kept = versions.undo(folder)
        typer.echo(f"{folder} is as it was before its last update ({kept.name} has gone)")
        return
    sessions = session or []
    if (posed is None) != (images is None) or sum(map(bool, (bag or sessions, posed))) != 1:
        raise MapError("give --bag, --session or both, or --posed and --images, or --undo")
    from pixloc_ros.evaluation import held_score  # torch and SciPy take seconds to import
    from pixloc_ros.features.pyramid import FeatureExtractor
    from pixloc_ros.maps import schema

    resolved = settings.resolve(folder)
    metadata, _ = schema.read(folder)
    recorded = _recorded(folder, sessions)
    extractor = FeatureExtractor(
        resolved.features.weights,
        resolved.device,
        metadata.max_side_px,
        resolved.features.precision,
    )
    judge = partial(held_score.score, resolved, progress=track)
    for drive in _drives(recorded, bag, posed, images, resolved, topic or []):
        for note in drive.notes:
            typer.echo(f"{drive.name}: {note}")
        report = update_map(folder, drive, extractor, judge, output, growth.options(), track)
        Console().print(_table(report, drive))
        folder, output = output or folder, None  # the next drive becomes part of that


def _recorded(folder: Path, sessions: list[Path]) -> list[DriveSession]:
    """The sessions of some folders, the oldest first; of several, not those that are too short."""
    from pixloc_ros.maps.files.session_folder import read_session
    from pixloc_ros.maps.map import Map

    if not sessions:
        return []
    map_ = Map.load(folder)
    found = [read_session(session, map_) for session in sessions]
    if len(found) > 1:
        for short in (each for each in found if len(each.frames) < MIN_FRAMES):
            typer.echo(f"{short.name} is left out: {len(short.frames)} frames are too few")
        found = [each for each in found if len(each.frames) >= MIN_FRAMES] or found[:1]
    return sorted(found, key=lambda each: each.frames[0].stamp_ns if each.frames else 0)


def _drives(
    sessions: list[DriveSession],
    bag: Path | None,
    posed: Path | None,
    images: Path | None,
    config: Config,
    topics: list[str],
) -> Iterator[DriveSession]:
    """One drive after the other: sessions, then the bag; or posed images."""
    from pixloc_ros.maps.files.posed_images import read_posed_images
    from pixloc_ros.replay import verified_frames

    yield from sessions
    if bag is not None:
        with verified_frames.localized_bag(
            bag, config, Topics().remapped(topics), track
        ) as localized:
            yield localized
    elif posed is not None and images is not None:
        drive = read_posed_images(posed, images)
        yield verified_frames.posed_session(posed.absolute().parent.name, drive)


def _table(report: UpdateReport, session: DriveSession) -> Table:
    entry = report.session
    table = Table("", "", title=f"{entry.name}, {entry.date}", show_header=False)
    rows = {
        "images verified": f"{entry.frames} of {session.images}",
        "keyframes added": entry.keyframes,
        "observations added": entry.observations,
        "points added": entry.points_added,
        "points retired": entry.points_retired,
        "held queries localized": report.held.recall,
        "their median error": report.held.median_error,
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
