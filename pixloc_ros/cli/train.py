"""`pixloc train`: train your own features."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.progress import track

if TYPE_CHECKING:
    from pixloc_ros.training.run import Finished


def train(
    configuration: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file, see config/training")
    ],
    output: Annotated[
        Path | None, typer.Option(help="folder for checkpoint, figures and weights")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue where the folder's last run ended")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="only draw some training pairs to this PNG file")
    ] = None,
) -> None:
    """Train features on your own photos or posed images.

    On several GPUs: torchrun --no-python pixloc train ...

    Example: pixloc train config/training/recipe.yaml --output run
    """
    # Imported here because torch takes seconds.
    from pixloc_ros.training import run
    from pixloc_ros.training.config import load

    config = load(configuration)
    if preview is not None:
        run.write_preview(config, preview)
        Console().print(f"pairs: {preview}", markup=False, soft_wrap=True)
    elif output is None:
        raise typer.BadParameter("name a folder for the results", param_hint="--output")
    elif (finished := run.train(config, output, resume, _bar)) is not None:
        _report(finished)


def _bar(steps: Iterable[Any], description: str, total: int) -> Iterable[Any]:
    return track(steps, description, total, lambda figures: f"loss {figures['loss']:.3f}")


def _report(finished: Finished) -> None:
    table = Table("figure", "value", title="Last validation")
    for name, value in finished.figures.items():
        table.add_row(name, f"{value:.4g}")
    console = Console()
    if finished.figures:
        console.print(table)
    done = finished.progress
    skipped = f", {done.skipped} left out: loss not finite" if done.skipped else ""
    console.print(f"{done.steps} steps in {done.seconds:.0f} s{skipped}")
    console.print(f"curves: {finished.curves}", markup=False, soft_wrap=True)
    console.print(f"weights: {finished.weights}", markup=False, soft_wrap=True)
