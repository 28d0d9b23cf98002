"""Measure the effect of a rolling shutter on the generated street, uncorrected and corrected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pixloc_ros.config import from_flat
from pixloc_ros.demo.run import DATUM
from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset, write_drive
from pixloc_ros.evaluation.metrics import Summary
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import create_bag
from pixloc_ros.replay.runner import replay


def rolling_shutter(
    output: Annotated[Path, typer.Option(help="folder for the map, the drives and the runs")],
    length: Annotated[float, typer.Option(help="metres to drive")] = 30.0,
    width: Annotated[
        int, typer.Option(help="image width in pixels; the height is three fifths")
    ] = 640,
    speed: Annotated[list[float], typer.Option(help="m/s, repeatable")] = [5.0, 10.0, 15.0],  # noqa: B006
    readout_ms: Annotated[list[float], typer.Option(help="repeatable")] = [0.0, 10.0, 20.0, 30.0],  # noqa: B006
    lens: Annotated[str, typer.Option(help="seed of the drives")] = "pinhole",
) -> None:
    """Replay drives with rolling shutters as they are and with camera.readout_s, over one map.

    Prints the rows of docs/lab/robustness.md. Existing results in the folder are reused.

    Example: python -m research rolling-shutter --output shutter --speed 15 --readout-ms 30
    """
    options = DatasetOptions(
        length_m=length, width=width, height=width * 3 // 5, drive_lens=lens, workers=1
    )
    if not (output / "map").exists():
        build(output, replace(options, drive_lens=""))
    for speed_m_s in speed:
        for milliseconds in readout_ms:
            drive = replace(options, speed_m_s=speed_m_s, readout_s=milliseconds / 1e3)
            measure(output, drive)


def build(output: Path, options: DatasetOptions) -> None:
    """Build the street's map under output/map."""
    write_dataset(output / "street", options)
    mapping = output / "street" / "mapping"
    drive = read_posed_images(mapping / "meta.json", mapping / "images")
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, output / "map", BuildOptions(datum=DATUM, T_base_cam=drive.T_base_cam))


def measure(output: Path, options: DatasetOptions) -> None:
    """Replay one drive without and with its readout; print a row of the table for each."""
    name = f"{options.drive_lens}_{options.speed_m_s:g}_{1e3 * options.readout_s:g}"
    folder = output / name
    if not folder.exists():
        write_drive(folder, options)
        drive = read_posed_images(folder / "meta.json", folder / "images")
        create_bag(drive, output / f"{name}_bag", BagOptions(datum=DATUM))
    for readout_s in dict.fromkeys((0.0, options.readout_s)):
        settings = {"map": str(output / "map"), "camera.readout_s": readout_s}
        run = output / f"{name}_with_{1e3 * readout_s:g}"
        found = replay(output / f"{name}_bag", from_flat(settings), run, report=False)
        print(row(options, readout_s, found.summary), flush=True)


def row(options: DatasetOptions, readout_s: float, summary: Summary) -> str:
    cells = [
        options.drive_lens,
        f"{options.speed_m_s:g}",
        f"{1e3 * options.readout_s:g}",
        "yes" if readout_s else "no",
        f"{summary.frames_localized} of {summary.frames_total}",
        f"{summary.median_error_m:.3f}",
        f"{summary.p95_error_m:.3f}",
        f"{summary.median_error_deg:.3f}",
    ]
    return f"| {' | '.join(cells)} |"
