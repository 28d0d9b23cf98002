"""`pixloc map merge`: several maps become one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.map_table import map_table
from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.errors import MapError
from pixloc_ros.maps.build.edit import StoredMap
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge import merger
from pixloc_ros.maps.merge.matching import SEARCH_M
from pixloc_ros.maps.merge.merger import Merged, MergeOptions, Overlap
from pixloc_ros.maps.schema import RowType

TileOption = Annotated[
    float | None, typer.Option(min=0, help="side of a tile in metres; 0: one tile; as it was")
]
RowsOption = Annotated[
    RowType | None, typer.Option(help="type of stored features; as it was where not given")
]
DEFAULT = MergeOptions()


@option_groups
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="MAP MAP...", help="map folders")],
    output: Annotated[Path, typer.Option(help="map folder to write")],
    join: Annotated[
        bool, typer.Option(help="make one of points that several maps have; or side by side")
    ] = DEFAULT.join,
    align: Annotated[
        bool,
        typer.Option("--align", help="bring each map onto those before it by what they share"),
    ] = DEFAULT.align,
    max_offset: Annotated[
        float, typer.Option(min=0.0, help="metres by which maps may differ without --align")
    ] = DEFAULT.max_offset_m,
    force: Annotated[
        bool, typer.Option("--force", help="write a map that localizes held queries worse")
    ] = DEFAULT.force,
    tile: TileOption = None,
    rows: RowsOption = None,
    *,
    settings: SettingsOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Join maps into one, in the frame of the first; placed by their datums where they have them.

    Example: pixloc map merge north south --output town
    """
    from pixloc_ros.evaluation import held_score  # takes seconds to import

    names = _names(folders)
    maps = [(name, Map.load(folder)) for name, folder in zip(names, folders, strict=True)]
    options = MergeOptions(join=join, align=align, max_offset_m=max_offset, force=force)
    resolved = settings.resolve(folders[0])
    judge = partial(held_score.score, resolved, progress=track)
    merged = merger.merge(
        maps,
        output,
        overwrite=overwrite,
        stored=StoredMap(tile, rows),
        options=options,
        progress=track,
        judge=judge,
    )
    Console().print(map_table(merged.map, output))
    if merged.overlaps:
        Console().print(_overlap_table(merged, align))
    for name, held in merged.held:
        typer.echo(f"held queries of {name}: {held.recall}; median error {held.median_error}")
    if not merged.held:
        typer.echo("no map holds queries of a drive (`map update` does), so none was localized")
    for overlap in merged.overlaps:
        if not len(overlap.offsets):
            typer.echo(
                f"{overlap.second} passes {overlap.first} and has no points in common with it: "
                f"another direction or light, or more than {SEARCH_M:.0f} m off"
            )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths below a common folder where names are the same.

    Raises MapError if a folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        raise MapError("a map is given twice: give each map once")
    common = os.path.commonpath(paths)
    return [path.relative_to(common).as_posix() for path in paths]


def _overlap_table(merged: Merged, align: bool) -> Table:
    columns = ("maps", "keyframes near", "apart", "largest", "turned", "points matched")
    table = Table(
        *columns,
        title="overlaps, before they were aligned" if align else "overlaps",
        caption=f"{merged.joined} points are joined; {merged.dropped} observations of them were "
        f"too many",
    )
    for overlap in merged.overlaps:
        table.add_row(*_row(overlap))
    return table


def _row(overlap: Overlap) -> tuple[str, ...]:
    offsets = overlap.offsets
    known = len(offsets) > 0
    lengths_cm = (f"{100 * m:.1f} cm" for m in (offsets.median_m, offsets.largest_m))
    turned = f"{np.median(offsets.angle_deg):.2f}°" if known else "unknown"
    apart = tuple(lengths_cm) if known else ("unknown",) * 2
    names = f"{overlap.first}, {overlap.second}"
    return (names, f"{overlap.keyframes}", *apart, turned, f"{overlap.matched}")
