"""`pixloc doctor`: find out what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from pixloc_ros.doctor import Finding


def doctor(
    map_folder: Annotated[str | None, typer.Option("--map", help="also check this map")] = None,
    live: Annotated[bool, typer.Option("--live", help="watch a running robot's topics")] = False,
    seconds: Annotated[float, typer.Option(help="how long to watch topics", min=0.1)] = 5.0,
    node: Annotated[str, typer.Option(help="full name of the localizer")] = "/pixloc_localizer",
    write: Annotated[
        Path | None, typer.Option(help="with --live: write a launch file for this robot's topics")
    ] = None,
) -> None:
    """Say what is missing on this machine, and the remedy.

    Exits with code 1 if something needed is missing. With --live, it checks the topics instead:
    type, quality of service, rate, frames, stamps.

    Example: pixloc doctor --map campus_map

    Example: pixloc doctor --live

    Example: pixloc doctor --live --write robot.launch.yaml --map campus_map
    """
    if write is not None:
        _write_launch_file(write, map_folder, seconds, live)
        return
    if live:
        findings = _live(seconds, node)
    else:
        from pixloc_ros.doctor import examine

        findings = examine(map_folder)
    _print(findings)


def _absolute(location: str | None) -> str:
    """Return the absolute path of a map; a URL unchanged."""
    from pixloc_ros.common.foreign_files import is_url

    if not location or is_url(location):
        return location or ""
    return str(Path(location).resolve())


def _write_launch_file(file: Path, map_folder: str | None, seconds: float, live: bool) -> None:
    from pixloc_ros.common.atomic_write import write_text
    from pixloc_ros.errors import ConfigError
    from pixloc_ros.sensors.launch_proposal import propose

    if not live:
        raise ConfigError("--write looks at the topics of a running robot: add --live")
    try:
        from pixloc_ros.ros.doctor_live import published_topics
    except ImportError as error:
        raise ConfigError(f"--live needs ROS 2 ({error}): source its setup file") from None
    proposal = propose(published_topics(seconds), _absolute(map_folder))
    write_text(file, proposal.launch_file())
    print(f"{proposal.command()}\n\nor: ros2 launch {file}")


def _live(seconds: float, node: str) -> Iterable[Finding]:
    try:
        from pixloc_ros.ros.doctor_live import examine_live
    except ImportError as error:
        from pixloc_ros.errors import ConfigError

        raise ConfigError(f"--live needs ROS 2 ({error}): source its setup file") from None
    return examine_live(seconds, node)


def _print(findings: Iterable[Finding]) -> None:
    table = Table("", *(Column(title, overflow="fold") for title in ("what", "found", "remedy")))
    missing = False
    for finding in findings:
        wrong = Text("no", "red") if finding.needed else Text("-")
        mark = Text("ok", "green") if finding.fine else wrong
        table.add_row(mark, finding.subject, finding.detail, "" if finding.fine else finding.remedy)
        missing |= finding.needed and not finding.fine
    Console(markup=False).print(table)
    if missing:
        raise typer.Exit(1)
