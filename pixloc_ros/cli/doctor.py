"""`pixloc doctor`: is everything here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def doctor(
    map_folder: Annotated[Path | None, typer.Option("--map", help="a map to check too")] = None,
) -> None:
    """Say what is missing on this machine, and the remedy. Exit code 1 if something needed is.

    Example: pixloc doctor --map campus_map
    """
    from pixloc_ros.doctor import examine

    table = Table("", "what", "found", "remedy")
    missing = False
    for finding in examine(map_folder):
        mark = "[green]ok[/]" if finding.fine else ("[red]no[/]" if finding.needed else "-")
        table.add_row(mark, finding.subject, finding.detail, "" if finding.fine else finding.remedy)
        missing |= finding.needed and not finding.fine
    Console().print(table)
    if missing:
        raise typer.Exit(1)
