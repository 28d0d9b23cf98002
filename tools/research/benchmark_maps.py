"""`python -m research benchmark-maps`: the cost of a map's size on this machine."""

from __future__ import annotations

import json as json_format
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.settings import SettingsOptions


@option_groups
def benchmark_maps(
    points: Annotated[
        list[float] | None, typer.Option(help="size of a map; repeatable [default: 1e4 to 1e6]")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="folder for the maps, written and removed one by one")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
    *,
    settings: SettingsOptions,
) -> None:
    """Write synthetic maps of several sizes; time start and views, measure memory and disk.

    A map of 1e7 points takes 6 GB of disk and minutes to write.

    Example: python -m research benchmark-maps --points 1e4 --points 1e7 --set tiles.budget_mb=100
    """
    from pixloc_ros.common.atomic_write import write_text
    from pixloc_ros.errors import DataError
    from research.map_benchmark import MapFigures, measure

    resolved, console = settings.resolve(Path()), _console()
    found: list[MapFigures] = []
    if folder is not None and not folder.is_dir():
        raise DataError(f"--folder {folder} does not exist; create it first")
    for count in points or [1e4, 1e5, 1e6]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found.append(measure(int(count), Path(place) / "map", resolved))
        console.print(f"{count:g} points: {found[-1].driving.view_ms:.2f} ms", style="dim")
        if json is not None:
            write_text(json, json_format.dumps([asdict(f) for f in found], indent=2) + "\n")
    console.print(_table(found))


def _console() -> Console:
    return Console(width=max(130, Console().width))


def _table(found) -> Table:  # type: ignore[no-untyped-def]
    table = Table(
        "points", "road km", "tiles", "MB per km", "load ms", "first view ms", "first pose ms",
        "view ms", "p99 ms", "fresh view ms", "tiles MB", "memory MB",
    )  # fmt: skip
    for f in found:
        start, driving = f.start, f.driving
        table.add_row(
            f"{f.points:,}",
            f"{f.length_km:.1f}",
            f"{f.tiles}",
            f"{f.bytes / 1e6 / f.length_km:.0f}",
            *(f"{ms:.0f}" for ms in (start.load_ms, start.first_view_ms, start.first_pose_ms)),
            *(f"{ms:.2f}" for ms in (driving.view_ms, driving.view_p99_ms)),
            *(f"{v:.0f}" for v in (driving.fresh_view_ms, driving.open_mb, driving.memory_mb)),
        )
    return table
