"""Record the figures of a run: lines of JSON, curves, and TensorBoard if it is installed."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import DataError
from pixloc_ros.visualization import plotting

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"


class Records:
    """Appends to metrics.jsonl and tensorboard/ of a folder; does nothing if not enabled.

    Records after step `first` are removed, because a resumed run writes them again.
    """

    def __init__(self, folder: Path, first: int, enabled: bool):
        self.path, self.enabled = folder / METRICS, enabled
        self._values: dict[str, list[float]] = defaultdict(list)
        self._board: SummaryWriter | None = None
        if enabled:
            kept = [json.dumps(line) + "\n" for line in read(folder) if line["step"] <= first]
            write_text(self.path, "".join(kept) if first else "")
            self._board = _board(folder / "tensorboard", first)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, figures: Mapping[str, float]) -> None:
        """Add the figures of one step, for the next means."""
        for name, value in figures.items():
            if math.isfinite(value):
                self._values[name].append(value)

    def write_means(self, step: int) -> None:
        """Write one record: the means of what was added since the last one."""
        self.write(step, {name: sum(all_) / len(all_) for name, all_ in self._values.items()})
        self._values.clear()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one record. Raises DataError if that fails."""
        if not self.enabled or not figures:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from None
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all records of a run, in order; a line that a kill has truncated is left out."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def last_validation(folder: Path) -> dict[str, float]:
    """Return figures by `source/what`; empty without a validation."""
    measured = [record for record in read(folder) if any("/" in name for name in record)]
    return {name: value for name, value in measured[-1].items() if "/" in name} if measured else {}


def _board(folder: Path, first: int) -> SummaryWriter | None:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first + 1)


def draw_curves(folder: Path) -> Path:
    """Draw curves.png: losses of training and figures of validation, over the steps."""
    panels = {
        "loss": ("alignment", "info_nce"),
        "share of the error left, or error (px), after a level": ("error_",),
        "validation: share of pairs that converge": ("/converged",),
        "validation: median error (px)": ("/median_px",),
    }
    records = read(folder)
    figure, all_axes = plotting.new_figure(2, 2, 11, 7)
    for axes, (title, parts) in zip(all_axes, panels.items(), strict=True):
        names = dict.fromkeys(n for r in records for n in r if any(part in n for part in parts))
        for name in names:
            points = [(r["step"], r[name]) for r in records if name in r]
            axes.plot(
                *zip(*points, strict=True), marker="." if len(points) < 30 else "", label=name
            )
        axes.set(title=title, xlabel="step", ylim=(min(0, axes.get_ylim()[0]), None))
        plotting.legend_inside(axes)
    return plotting.save(figure, folder / "curves.png")
