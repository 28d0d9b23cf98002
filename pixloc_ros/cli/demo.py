"""`pixloc demo`: run everything, end to end, on a generated street."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.progress import track

if TYPE_CHECKING:
    from pixloc_ros.demo.run import DemoResult


def demo(
    output: Annotated[Path, typer.Option(help="new folder for all results")] = Path("demo_run"),
    length: Annotated[float, typer.Option(min=15.0, help="metres to drive")] = 100.0,
    rate: Annotated[float, typer.Option(min=0.05, help="pace of the bag; 1: as recorded")] = 1.0,
    seed: Annotated[int, typer.Option(help="another seed gives another street")] = 0,
    session: Annotated[
        str, typer.Option(help="conditions of the drive: later, night, low_sun, wet, snow, ...")
    ] = "later",
    mapping_lens: Annotated[
        str,
        typer.Option(help="pinhole, plumb_bob, rational_polynomial or equidistant (fisheye)"),
    ] = "pinhole",
    lens: Annotated[
        str, typer.Option(help="lens of the drive; default: that of the mapping drive")
    ] = "",
    speed: Annotated[
        float, typer.Option(min=0.5, max=50.0, help="speed of the drive, in m/s")
    ] = 8.0,
    readout_s: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.1, help="use a rolling shutter: seconds from first row to last"
        ),
    ] = 0.0,
) -> None:
    """Generate a street, map it, drive through it live over DDS, and report.

    Example: pixloc demo --output demo_run
    """
    # Imported here because torch and the plotting libraries take seconds.
    from pixloc_ros.demo.run import run_demo
    from pixloc_ros.demo.street.dataset import DatasetOptions

    console = Console()
    options = DatasetOptions(
        seed=seed,
        length_m=length,
        session=session,
        mapping_lens=mapping_lens,
        drive_lens=lens,
        speed_m_s=speed,
        readout_s=readout_s,
    )
    result = run_demo(output, options, rate, say=console.print, progress=track)
    console.print(_table(result))
    if result.largest_difference_m is not None:
        millimetres = 1e3 * result.largest_difference_m
        console.print(f"live and replayed poses of the same frames: within {millimetres:.1f} mm")
    console.print(f"report: {result.output / 'replay' / 'report.md'}", soft_wrap=True)


def _table(result: DemoResult) -> Table:
    from pixloc_ros.evaluation.tables import summary_rows

    columns = {"replay": result.replay}
    if result.live is not None:
        columns = {"live node": result.live, **columns}
    rows = {name: dict(summary_rows(summary)) for name, summary in columns.items()}
    table = Table("", *columns, title="Where was the car?", title_style="bold")
    for label in rows["replay"]:
        table.add_row(label, *(rows[name].get(label, "") for name in columns))
    return table
