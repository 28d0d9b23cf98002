"""What a rolling shutter does to the pose on the generated street, and what is left of it.

    python tools/research/rolling_shutter.py --output shutter

One map, and a drive over it for each speed and readout, all with the same street and day. Each is
replayed as it is and with camera.readout_s. Prints the table of docs/lab/robustness.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--length", type=float, default=30.0, help="metres")
    parser.add_argument("--width", type=int, default=640, help="pixels, by three fifths as high")
    parser.add_argument("--speeds", type=float, nargs="+", default=[5.0, 10.0, 15.0])
    parser.add_argument("--readouts-ms", type=float, nargs="+", default=[0, 10, 20, 30])
    parser.add_argument("--lens", default="pinhole")
    arguments = parser.parse_args()
    options = DatasetOptions(
        length_m=arguments.length,
        width=arguments.width,
        height=arguments.width * 3 // 5,
        drive_lens=arguments.lens,
        workers=1,
    )
    if not (arguments.output / "map").exists():
        build(arguments.output, replace(options, drive_lens=""))
    for speed in arguments.speeds:
        for readout_ms in arguments.readouts_ms:
            measure(
                arguments.output,
                replace(options, speed_m_s=speed, readout_s=readout_ms / 1e3),
            )


def build(output: Path, options: DatasetOptions) -> None:
    """The street's map under output/map."""
    write_dataset(output / "street", options)
    mapping = output / "street" / "mapping"
    drive = read_posed_images(mapping / "meta.json", mapping / "images")
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, output / "map", BuildOptions(datum=DATUM, T_base_cam=drive.T_base_cam))


def measure(output: Path, options: DatasetOptions) -> None:
    """One drive, as it is and with its readout: a row of the table for each."""
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


if __name__ == "__main__":
    main()
