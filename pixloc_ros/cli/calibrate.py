"""`pixloc calibrate`: where the camera sits, and by how much its stamps are off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.replay import ConfigOption, DeviceOption, SetOption, resolve_config
from pixloc_ros.sensors.topics import Topics

if TYPE_CHECKING:
    from pixloc_ros.replay.calibrate import CameraCalibration

DEGREES = 57.29577951308232
# Unit, factor to it, digits, and what makes a drive tell it, in the order of COMPONENTS.
SHOWN = (
    ("cm", 100.0, 1, "turns"),
    ("cm", 100.0, 1, "turns, and odometry with little noise"),
    ("cm", 100.0, 1, "ramps, speed bumps or braking"),
    ("deg", DEGREES, 3, "turns"),
    ("deg", DEGREES, 3, "driving ahead"),
    ("deg", DEGREES, 3, "driving ahead"),
    ("ms", 1000.0, 1, "turns, starts and stops"),
    ("%", 100.0, 2, "driving ahead"),
)


def calibrate(
    map_folder: Annotated[str, typer.Argument(metavar="MAP", help="folder of the map, or its URL")],
    bag: Annotated[Path, typer.Argument(help="rosbag2 of a drive on it, with odometry")],
    output: Annotated[
        Path | None, typer.Option(help="file for the settings found, as for --config")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="part=/topic, e.g. image=/cam0/image_raw")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Find the camera's mounting and time offset by a drive over a map, with sigmas.

    Example: pixloc calibrate campus_map drive_bag --output camera.yaml
    """
    from pixloc_ros.common.atomic_write import check_writable, write_text
    from pixloc_ros.replay import calibrate as calibration

    resolved = resolve_config(config, settings, map_folder, device)
    if output is not None:
        check_writable(output)
    found = calibration.calibrate(bag, resolved, Topics().remapped(topic or []), track)
    console = Console()
    console.print(_table(found))
    console.print(f"localized {found.localized} of {found.frames} frames", highlight=False)
    (before_m, before_rad), (after_m, after_rad) = found.before, found.after
    console.print(
        f"the last quarter of the drive, calibrated by the rest: poses and odometry differ from "
        f"frame to frame by {100 * before_m:.2f} cm, {DEGREES * before_rad:.3f} deg before and "
        f"{100 * after_m:.2f} cm, {DEGREES * after_rad:.3f} deg after",
        highlight=False,
        soft_wrap=True,
    )
    if output is not None:
        write_text(output, found.parameters())
        console.print(f"settings: {output}", markup=False, soft_wrap=True)
    else:
        console.print(found.parameters(), end="", markup=False, highlight=False)


def _table(found: CameraCalibration) -> Table:
    from pixloc_ros.priors.mounting import COMPONENTS

    table = Table("of the camera", "is off by", "sigma", "")
    estimate = found.estimate
    rows = zip(COMPONENTS, estimate.values, estimate.sigmas, SHOWN, strict=True)
    for i, (name, value, sigma, (unit, factor, digits, needs)) in enumerate(rows):
        if not estimate.determined[i]:
            table.add_row(name, "", "", f"not told by this drive, stays as it was: needs {needs}")
            continue
        off = f"{factor * value:+.{digits}f} {unit}"
        within = "" if abs(value) > 3 * sigma else "right, as far as this drive tells"
        table.add_row(name, off, f"{factor * sigma:.{digits}f} {unit}", within)
    return table
