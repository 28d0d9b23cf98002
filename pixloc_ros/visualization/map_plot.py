"""A map from above: its points by height, and where its keyframes looked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pixloc_ros.evaluation import canvas
from pixloc_ros.maps.map import Map

MAX_POINTS = 100_000  # more cannot be told apart
SHOWN_SHARE = (0.01, 0.99)  # heights beyond these quantiles get the last colours
FAR_AWAY_M = 1e5  # coordinates beyond it (UTM) are drawn relative to a round number
MARGIN_M = 30.0  # around the keyframes; points farther away are left out


def write_map_plot(map_: Map, path: Path) -> Path:
    """Write a PNG of the map seen from above, x to the right, y up."""
    return canvas.save(map_figure(map_), path)


def map_figure(map_: Map) -> Figure:
    """The figure of `write_map_plot`."""
    places = map_.keyframe_T_map_cam[:, :3, 3]
    zero = np.round(places.mean(0), -2) if np.abs(places).max() > FAR_AWAY_M else np.zeros(3)
    points = _near(map_.points_map(), places) - zero
    extent = np.ptp(places[:, :2], axis=0) + 2 * MARGIN_M
    figure, (axes,) = canvas.new_figure(
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
        *(places - zero).T[:2], *forward, color=canvas.KEYFRAME_COLOR, width=0.002, scale=50,
        zorder=3, label=f"{len(places)} keyframes",
    )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    labels = (
        f"{axis}{f' - {z:.0f}' if z else ''} (m)" for axis, z in zip("xy", zero, strict=False)
    )
    axes.set(**dict(zip(("xlabel", "ylabel"), labels, strict=True)))
    canvas.legend_inside(axes)
    return figure


def _near(points: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most MAX_POINTS of the points that are not far beyond all keyframes."""
    low, high = places.min(0)[:2] - MARGIN_M, places.max(0)[:2] + MARGIN_M
    near = points[((points[:, :2] >= low) & (points[:, :2] <= high)).all(-1)]
    return near[:: len(near) // MAX_POINTS + 1]
