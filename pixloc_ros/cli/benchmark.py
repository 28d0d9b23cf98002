"""`pixloc benchmark`: measure how long each stage takes on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.evaluation.neighbours import Neighbour, neighbours


@option_groups
def benchmark(
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the image")] = "640x384",
    runs: Annotated[int, typer.Option(min=3, help="runs per row, after a warm-up")] = 20,
    json: Annotated[Path | None, typer.Option(help="file for the figures")] = None,
    beside: Annotated[
        int, typer.Option(min=0, help="number of other programs to run on this machine meanwhile")
    ] = 0,
    neighbour: Annotated[
        Neighbour,
        typer.Option(help="what those programs are: busy loops, or torch with its threads"),
    ] = "busy",
    *,
    settings: SettingsOptions,
) -> None:
    """Time network, iterations and alignment, and compare with the least time this machine allows.

    That floor is measured before the other programs start. Example: pixloc benchmark --size
    1248x384 --beside 2 --json benchmark.json
    """
    from json import dumps

    from pixloc_ros.common.atomic_write import check_writable, write_text
    from pixloc_ros.evaluation.benchmark import BenchmarkRow, SpeedBenchmark

    if json is not None:
        check_writable(json)
    width, height = parse_size(size)
    bench = SpeedBenchmark(settings.resolve(Path()), width, height, runs)
    machine, console = bench.machine, Console(width=max(100, Console().width))
    console.print(
        f"{machine.name}, {machine.device}, {machine.threads} threads: "
        f"{machine.gflop_per_s:.0f} GFLOP/s, {machine.gbyte_per_s:.1f} GB/s"
    )
    rows: list[BenchmarkRow] = []
    with neighbours(beside, neighbour):
        for row in bench.rows():
            rows.append(row)
            console.print(f"{row.stage}: {row.median_ms:.2f} ms", style="dim")
    console.print(_table(rows))
    if json is not None:
        others = {"count": beside, "kind": neighbour}
        stages = [asdict(row) for row in rows]
        content = {"machine": asdict(machine), "beside": others, "rows": stages}
        write_text(json, dumps(content, indent=2) + "\n")


def parse_size(size: str) -> tuple[int, int]:
    """Return width and height of WIDTHxHEIGHT. Raises BadParameter."""
    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise typer.BadParameter(f"'{size}' is not WIDTHxHEIGHT, e.g. 640x384") from None
    return width, height


def _table(rows) -> Table:  # type: ignore[no-untyped-def]
    table = Table(
        "stage", "median ms", "p95 ms", "p99 ms", "GFLOP", "MB", "floor ms", "times the floor"
    )
    for row in rows:
        known = row.floor_ms > 0
        table.add_row(
            row.stage,
            f"{row.median_ms:.2f}",
            f"{row.p95_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.gflop:.3f}" if known else "",
            f"{row.mbyte:.2f}" if known else "",
            f"{row.floor_ms:.3f}" if known else "",
            f"{row.ratio:.1f}" if known else "",
        )
    return table
