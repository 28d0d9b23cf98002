"""Plot the basin of attraction as curves, like figure 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.visualization import plotting
from research.descent import CHAIN

UNITS = {"forward": "m", "lateral": "m", "yaw": "deg"}


def write_basin(
    path: Path,
    shares: Mapping[str, Mapping[str, NDArray[np.float64]]],
    sizes: Mapping[str, Sequence[float]],
) -> Path:
    """Draw one panel per axis, one curve per level and one for all levels in a row. PNG."""
    figure, panels = plotting.new_figure(1, len(shares), 3.6 * len(shares), 3.2, sharey=True)
    for axes, (axis, curves) in zip(panels, shares.items(), strict=True):
        for name, share in curves.items():
            bold = name == CHAIN
            axes.plot(sizes[axis], share, label=name, lw=2.4 if bold else 1.2,
                      color="black" if bold else None, marker="." if bold else None)  # fmt: skip
        axes.set(xlabel=f"{axis} offset ({UNITS[axis]})", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("share of frames that arrive")
    plotting.legend_above(figure, panels[0])
    return plotting.save(figure, path)
