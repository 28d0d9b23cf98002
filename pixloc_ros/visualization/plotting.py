"""Common style of matplotlib figures: colours of statuses, axes, saving; and a plot of a map."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.maps.map import Map
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

MAX_POINTS = 100_000  # more could not be told apart
SHOWN_SHARE = (0.01, 0.99)  # heights beyond these quantiles get the colours of the ends
FAR_AWAY_M = 1e5  # larger coordinates (UTM) are drawn relative to a round number
MARGIN_M = 30.0  # around the keyframes; points beyond it are left out


def new_figure(
    rows: int, columns: int, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Create an empty figure, its size in inches; return it and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axes in grid.flat:
        axes.grid(True, which="major", color="#E4E4E4", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def log_axis(axes: Axes, which: str) -> None:
    """Make the x or y axis logarithmic, labelled 0.01 rather than by powers of ten."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def scatter_by_status(
    axes: Axes, points: Iterable[tuple[Status, float, float]], size: float = 16
) -> None:
    """Draw markers with the colour and shape of their status, rejected ones on top."""
    rows = list(points)
    for status, (color, marker) in STATUS_STYLE.items():
        chosen = np.array([(x, y) for verdict, x, y in rows if verdict is status])
        if len(chosen):
            x, y = chosen.T
            axes.scatter(x, y, s=size, color=color, marker=marker, alpha=0.8, label=status)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Put one legend for all panels in a row above them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)


def legend_inside(axes: Axes) -> None:
    """Put a legend where it hides least, if there are any labels."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, atomically."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=130, format="png")
    return path


def save_map_plot(map_: Map, path: Path) -> Path:
    """Write a PNG of the map from above, x to the right, y up."""
    return save(map_figure(map_), path)


def map_figure(map_: Map) -> Figure:
    """Return the figure of `save_map_plot`."""
    places = map_.keyframe_T_map_cam[:, :3, 3]
    zero = np.round(places.mean(0), -2) if np.abs(places).max() > FAR_AWAY_M else np.zeros(3)
    points = _near(map_.points_map(), places) - zero
    extent = np.ptp(places[:, :2], axis=0) + 2 * MARGIN_M
    figure, (axes,) = new_figure(
        1, 1, 10, 1.2 + 8.5 * float(np.clip(extent[1] / extent[0], 0.35, 1))
    )
    if len(points):
        low, high = np.quantile(points[:, 2], SHOWN_SHARE)
        drawn = axes.scatter(
            points[:, 0], points[:, 1], s=1, c=points[:, 2], cmap="viridis", vmin=low, vmax=high
        )
        figure.colorbar(drawn, ax=axes, label="height z (m)", shrink=0.7)
    forward = map_.keyframe_T_map_cam[:, :2, 2].T
    axes.quiver(
        *(places - zero).T[:2], *forward, color=KEYFRAME_COLOR, width=0.002, scale=50,
        zorder=3, label=f"{len(places)} keyframes",
    )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    labels = (
        f"{axis}{f' - {z:.0f}' if z else ''} (m)" for axis, z in zip("xy", zero, strict=False)
    )
    axes.set(**dict(zip(("xlabel", "ylabel"), labels, strict=True)))
    legend_inside(axes)
    return figure


def _near(points: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most MAX_POINTS of the points that are near some keyframe."""
    low, high = places.min(0)[:2] - MARGIN_M, places.max(0)[:2] + MARGIN_M
    near = points[((points[:, :2] >= low) & (points[:, :2] <= high)).all(-1)]
    return near[:: len(near) // MAX_POINTS + 1]
