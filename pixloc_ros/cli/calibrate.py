"""`pixloc calibrate`: where the camera sits, how its stamps are off, and how it takes images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.errors import ConfigError
from pixloc_ros.sensors.topics import Topics

if TYPE_CHECKING:
    from pixloc_ros.replay.calibrate import CameraCalibration
    from pixloc_ros.replay.camera_parameters import ParameterEstimate

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
SHOWN_PARAMETERS = (
    ("%", 100.0, 3, "points near and far in one image"),
    ("ms", 1000.0, 2, "points near and far in one image, at speed"),
)


@option_groups
def calibrate(
    map_folder: Annotated[str, typer.Argument(metavar="MAP", help="folder of the map, or its URL")],
    bag: Annotated[Path, typer.Argument(help="rosbag2 of a drive on it, with odometry")],
    output: Annotated[
        Path | None, typer.Option(help="file for the settings found, as for --config")
    ] = None,
    focal_length: Annotated[
        bool, typer.Option("--focal-length", help="find the focal length as well")
    ] = False,
    readout: Annotated[
        bool, typer.Option("--readout", help="find the readout time of a rolling shutter as well")
    ] = False,
    camera_info: Annotated[
        Path | None,
        typer.Option(
            help="with --focal-length: file for the calibration found, as camera_calibration "
            "writes it and drivers read it"
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="part=/topic, e.g. image=/cam0/image_raw, or camera_info=camera.yaml"),
    ] = None,
    *,
    settings: SettingsOptions,
) -> None:
    """Find the camera's mounting and time offset by a drive over a map, with sigmas.

    Example: pixloc calibrate campus_map drive_bag --output camera.yaml
    """
    from pixloc_ros.common.atomic_write import check_writable, write_text
    from pixloc_ros.replay import calibrate as calibration
    from pixloc_ros.replay.calibration_file import calibration_yaml

    if camera_info is not None and not focal_length:
        raise ConfigError("--camera-info is for the focal length found: add --focal-length")
    resolved = settings.resolve(map_folder)
    for file in (output, camera_info):
        if file is not None:
            check_writable(file)
    topics = Topics().remapped(topic or [])
    found = calibration.calibrate(bag, resolved, topics, track, focal_length, readout)
    console = Console()
    if found.parameters_found is not None:
        _print_parameters(console, found.parameters_found)
    if camera_info is not None:
        write_text(camera_info, calibration_yaml(found.camera, camera_info.stem))
        console.print(f"calibration: {camera_info}", markup=False, soft_wrap=True)
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


def _print_parameters(console: Console, found: ParameterEstimate) -> None:
    from pixloc_ros.replay.camera_parameters import PARAMETERS

    table = Table("of the camera", "is off by", "sigma", "")
    rows = zip(
        PARAMETERS, found.values - found.configured, found.sigmas, SHOWN_PARAMETERS, strict=True
    )
    for i, (name, value, sigma, (unit, factor, digits, needs)) in enumerate(rows):
        if found.asked[i]:
            table.add_row(name, *_cells(value, sigma, unit, factor, digits, needs))
    console.print(table)
    console.print(
        f"by {found.frames} images; the last quarter of them, calibrated by the rest, differs from "
        f"the map by {found.held_cost_before:.4f} before and {found.held_cost_after:.4f} after "
        "(mean cost of its points)",
        highlight=False,
        soft_wrap=True,
    )


def _table(found: CameraCalibration) -> Table:
    from pixloc_ros.priors.mounting import COMPONENTS

    table = Table("of the camera", "is off by", "sigma", "")
    estimate = found.estimate
    rows = zip(COMPONENTS, estimate.values, estimate.sigmas, SHOWN, strict=True)
    for name, value, sigma, shown in rows:
        table.add_row(name, *_cells(value, sigma, *shown))
    return table


def _cells(
    value: float, sigma: float, unit: str, factor: float, digits: int, needs: str
) -> tuple[str, str, str]:
    """By how much something is off, its sigma, and a remark; a sigma of inf: it is not known."""
    if sigma == float("inf"):
        return "", "", f"not told by this drive, stays as it was: needs {needs}"
    off = f"{factor * value:+.{digits}f} {unit}"
    within = "" if abs(value) > 3 * sigma else "right, as far as this drive tells"
    return off, f"{factor * sigma:.{digits}f} {unit}", within
