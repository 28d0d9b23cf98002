"""How figures look: empty axes, colours of the statuses, and saving."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.types import Status

# Okabe and Ito's palette: distinct for the colour-blind too.
STATUS_STYLE: dict[Status, tuple[str, str]] = {
    Status.OK: ("#0072B2", "o"),
    Status.REJECTED: ("#D55E00", "X"),
    Status.AMBIGUOUS: ("#E69F00", "D"),
    Status.FAILED: ("#4D4D4D", "x"),
}
ESTIMATE_COLOR = STATUS_STYLE[Status.OK][0]
PRIOR_COLOR = "#999999"
LIMIT_COLOR = "#009E73"
KEYFRAME_COLOR = "#CC79A7"
TRUTH_COLOR = "#BBBBBB"


def new_figure(
    rows: int, columns: int, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axes in grid.flat:
        axes.grid(True, which="major", color="#E4E4E4", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic x or y axis with 0.01 rather than powers of ten."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def scatter_by_status(
    axes: Axes, points: Iterable[tuple[Status, float, float]], size: float = 16
) -> None:
    """Markers in the colour and shape of their status, the refused ones on top."""
    rows = list(points)
    for status, (color, marker) in STATUS_STYLE.items():
        chosen = np.array([(x, y) for verdict, x, y in rows if verdict is status])
        if len(chosen):
            x, y = chosen.T
            axes.scatter(x, y, s=size, color=color, marker=marker, alpha=0.8, label=status)


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, in a row above them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)


def legend_inside(axes: Axes) -> None:
    """A legend where it hides the least, if there is anything to name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, atomically."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=130, format="png")
    return path
