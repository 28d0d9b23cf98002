"""`pixloc evaluate`: measure how good poses are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def evaluate(
    estimate: Annotated[
        Path, typer.Option(help="run folder, TUM trajectory (map_from_base), or named poses")
    ],
    ground_truth: Annotated[
        Path | None, typer.Option(help="true poses; default: those in the run folder, if any")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder for summary.json, plots and report.md")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0, help="largest difference in seconds between stamps of the same frame"
        ),
    ] = 0.01,
) -> None:
    """Compare poses with the ground truth; frames without a pose count as failed.

    Example: pixloc evaluate --estimate run/ --ground-truth drive.truth.txt --output report/
    """
    # Imported here: plotting libraries take a second, which other commands need not wait for.
    from pixloc_ros.evaluation import metrics, report, sources, tables

    frames = sources.load_frames(estimate, ground_truth, tolerance)
    provenance = sources.load_provenance(estimate)
    if output is None:
        summary = metrics.evaluate(frames, provenance=provenance)
    else:
        summary = report.report_on(output, frames, provenance)
    console = Console()
    console.print(tables.summary_table(summary, f"{estimate}"))
    if output is not None:
        console.print(f"report: {output / report.REPORT_FILE}", markup=False, soft_wrap=True)
