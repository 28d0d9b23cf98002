"""`pixloc map calibrate`: fit covariances to the errors on a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.common.progress import keeping
from pixloc_ros.evaluation import calibration
from pixloc_ros.evaluation.calibration import (
    GAUSSIAN,
    CalibrationSamples,
    coverage,
    cross_validated_coverage,
)
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps import schema
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.schema import Calibration

AXES = ("forward", "left", "up", "about forward", "about left", "about up")


@option_groups
def calibrate(
    folder: Annotated[
        Path, typer.Argument(metavar="MAP", help="map folder, to which the calibration is written")
    ],
    images: Annotated[Path, typer.Option(help="folder of images that are not in the map")],
    meta: Annotated[Path, typer.Option(help="meta.json with their true poses")],
    exclude_every: Annotated[
        int, typer.Option(help="leave out every Nth frame, as used for the map")
    ] = 0,
    every: Annotated[int, typer.Option(min=1, help="use every Nth of the remaining frames")] = 1,
    axes: Annotated[str, typer.Option(help="keep or optical_to_ros, as for the map")] = "keep",
    dry_run: Annotated[bool, typer.Option(help="only measure, do not change the map")] = False,
    *,
    settings: SettingsOptions,
) -> None:
    """Measure how accurate poses on a map are, and calibrate its covariances accordingly.

    Example: pixloc map calibrate town --images drive2/images --meta drive2/meta.json
    """
    resolved = settings.resolve(folder)
    localizer, drive = Localizer(resolved), read_posed_images(meta, images, axes)
    index = [i for i in range(len(drive.files)) if not exclude_every or i % exclude_every][::every]
    if not dry_run:
        schema.check_writable(folder)
    frames = track(posed_frames(drive, index), "localizing", len(index))
    with keeping(f"{folder} is as it was"):
        measured = calibration.measure(localizer, frames)
    found = calibration.calibration(measured, resolved.covariance.scale)
    Console().print(_table(measured, found))
    if not dry_run:
        metadata = localizer.map.metadata.model_copy(update={"calibration": found})
        schema.write(metadata, folder)


def _table(measured: CalibrationSamples, found: Calibration) -> Table:
    table = Table(
        "axis of the vehicle",
        "floor",
        "within 1, 2, 3 sigma [%]",
        "cross-validated [%]",
        title=f"{found.frames} frames; a Gaussian has {_percent(GAUSSIAN)}",
    )
    floors = [f"{1e3 * m:.1f} mm" for m in found.floor_m]
    floors += [f"{deg:.3f} deg" for deg in found.floor_deg]
    sigmas = np.concatenate([found.floor_m, np.deg2rad(found.floor_deg)])
    scaled = measured.scaled(found.scale)
    own = coverage(scaled.errors, scaled.variances + sigmas**2)
    unseen = cross_validated_coverage(scaled)
    for axis, floor, shares, others in zip(AXES, floors, own.T, unseen.T, strict=True):
        table.add_row(axis, floor, _percent(shares), _percent(others))
    return table


def _percent(shares: NDArray[np.float64]) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in shares)
