"""`research sensitivity`: recall over errors of calibration and prior: curves and areas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.settings import MapOption, SetOption, SettingsOptions
from pixloc_ros.evaluation.shots import Offset
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import PosedImages, read_posed_images
from pixloc_ros.types import Estimate, Frame, PosePrior
from pixloc_ros.visualization import plotting
from research import experiment

UP_TO_M = 0.5  # of the area under the recall
SURE = Offset(1.0, 2.0)  # of the prior if the calibration is wrong


@dataclass(frozen=True, slots=True)
class Axis:
    """A quantity to falsify, by how much, and how."""

    unit: str
    sizes: tuple[float, ...]
    offset: Callable[[float], Offset]
    camera: Callable[..., Camera]


def _same(camera: Camera, size: float) -> Camera:
    return camera


def _zoomed(camera: Camera, size: float) -> Camera:
    """Lengthen the focal length by percents."""
    return replace(camera, focal=camera.focal * (1 + size / 100))


def _shifted(camera: Camera, size: float) -> Camera:
    """Move the principal point along x, by percents of the width."""
    moved = camera.center.clone()
    moved[..., 0] += camera.width * size / 100
    return replace(camera, center=moved)


AXES = {
    "focal length": Axis("%", (-8, -4, -2, -1, 0, 1, 2, 4, 8), lambda size: SURE, _zoomed),
    "principal point": Axis("% of the width", (0, 0.25, 0.5, 1, 2, 4), lambda size: SURE, _shifted),
    "prior's position": Axis("m", (0.5, 1, 2, 4, 8, 12), lambda size: Offset(size, 1.0), _same),
    "prior's heading": Axis("deg", (1, 2, 4, 8, 12, 16, 24), lambda size: Offset(0.5, size), _same),
}


@dataclass(frozen=True, slots=True)
class Miscalibrated:
    """A localizer with a wrong calibration."""

    localizer: Localizer
    camera: Callable[[Camera], Camera]

    def localize(self, frame: Frame, prior: PosePrior | None) -> Estimate:
        return self.localizer.localize(replace(frame, camera=self.camera(frame.camera)), prior)


def sensitivity(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    output: Annotated[Path, typer.Option(help="JSON file of all errors; existing ones are kept")],
    plot: Annotated[Path | None, typer.Option(help="PNG of the curves")] = None,
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    per_frame: cli.PerFrameOption = 1,
    axes: cli.AxesOption = "keep",
    settings: SetOption = None,
) -> None:
    """Localize the same frames with increasingly wrong calibrations or priors.

    Example: python -m research sensitivity --map town --images drive/images
    --meta drive/meta.json --every 5 --output sensitivity.json --plot sensitivity.png
    """
    drive = read_posed_images(meta, images, axes)
    index = experiment.drive_index(drive, exclude_every, every)
    localizer = Localizer(SettingsOptions(given=settings).resolve(map_folder))
    record = experiment.Record(output)
    for name, axis, size in _cases():
        case = f"{name} {size:g}"
        if not record.has(case, map_folder):
            shots = _series(drive, index, axis, size, per_frame).shoot(
                Miscalibrated(localizer, partial(axis.camera, size=size)), case
            )
            record.add(case, map_folder, experiment.errors(shots))
    found = record.pooled()
    Console().print(_table(found))
    if plot is not None:
        _draw(plot, found)


def _cases() -> Iterator[tuple[str, Axis, float]]:
    for name, axis in AXES.items():
        for size in axis.sizes:
            yield name, axis, size


def _series(
    drive: PosedImages, index: tuple[int, ...], axis: Axis, size: float, per_frame: int
) -> experiment.Series:
    return experiment.Series(drive, index, axis.offset(size), per_frame)


def _table(found: dict[str, np.ndarray]) -> Table:
    columns = [str(limit) for limit in experiment.LIMITS]
    table = Table("wrong by", "shots", *columns, "median m", f"area up to {UP_TO_M:g} m")
    for name, axis, size in _cases():
        errors = found[f"{name} {size:g}"]
        shares = [str(experiment.share(errors, limit)) for limit in experiment.LIMITS]
        area = experiment.area_under_recall(errors, UP_TO_M)
        median = f"{np.median(errors[:, 0]):.3f}"
        table.add_row(
            f"{name}, {size:g} {axis.unit}", str(len(errors)), *shares, median, f"{area:.2f}"
        )
    return table


def _draw(path: Path, found: dict[str, np.ndarray]) -> None:
    """Draw one panel per axis: shares with intervals, and the area under the recall."""
    figure, panels = plotting.new_figure(1, len(AXES), 3.2 * len(AXES), 3.0, sharey=True)
    for panel, (name, axis) in zip(panels, AXES.items(), strict=True):
        errors = [found[f"{name} {size:g}"] for size in axis.sizes]
        for limit in experiment.LIMITS:
            shares = [experiment.share(each, limit) for each in errors]
            bounds = np.array([share.interval for share in shares]).T
            panel.plot(axis.sizes, [s.value for s in shares], marker=".", label=f"within {limit}")
            panel.fill_between(axis.sizes, *bounds, alpha=0.15)
        areas = [experiment.area_under_recall(each, UP_TO_M) for each in errors]
        panel.plot(axis.sizes, areas, "k--", lw=1, label=f"area under recall, up to {UP_TO_M:g} m")
        panel.set(xlabel=f"{name}, wrong by ({axis.unit})", ylim=(-0.03, 1.03))
    plotting.legend_above(figure, panels[0])
    plotting.save(figure, path)
