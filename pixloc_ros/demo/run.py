"""Run the demo: street, map, bag, the node live over DDS, and the same bag replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixloc_ros.common.progress import Progress, keeping, silent
from pixloc_ros.config import Config, from_flat
from pixloc_ros.demo import live
from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.sessions import find_session
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.frames import FrameResult
from pixloc_ros.evaluation.metrics import Summary
from pixloc_ros.evaluation.report import report_on
from pixloc_ros.evaluation.sources import load_frames
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import create_bag
from pixloc_ros.replay.runner import ReplayResult, replay

DATUM = Datum(latitude_deg=48.137, longitude_deg=11.575, altitude_m=519.0, yaw_deg=30.0)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Summaries of both runs; `live` is None if ROS is not installed."""

    live: Summary | None
    replay: Summary
    largest_difference_m: float | None  # between live and replayed poses of the same frames
    output: Path


def run_demo(
    output: Path,
    options: DatasetOptions,
    rate: float = 1.0,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> DemoResult:
    """Generate everything below `output`, localize the drive live and replayed, write both reports.

    Raises DataError if `output` exists.
    """
    if output.exists():
        raise DataError(f"{output} exists already: remove it or choose another --output")
    with keeping(f"{output} is not whole: remove it, or choose another --output"):
        return _run_demo(output, options, rate, say, progress)


def _run_demo(
    output: Path, options: DatasetOptions, rate: float, say: Say, progress: Progress
) -> DemoResult:
    say("1/5 generating a street, its mapping images and a drive")
    write_dataset(output / "street", options)
    say("2/5 building the map: features of every mapping image at its points")
    config = from_flat({"map": str(_build_map(output, progress)), **_shutter(options)})
    say("3/5 writing the drive as a bag with noisy odometry and GNSS")
    bag = _write_bag(output)
    live_frames = _live(bag, config, output / "live", rate, say)
    say("5/5 replaying the same bag without ROS")
    replayed = replay(bag, config, output / "replay", progress=progress)
    summary = _report_live(live_frames, replayed, output / "live") if live_frames else None
    difference = _largest_difference(live_frames, replayed)
    return DemoResult(summary, replayed.summary, difference, output)


def _build_map(output: Path, progress: Progress) -> Path:
    mapping = output / "street" / "mapping"
    drive = read_posed_images(mapping / "meta.json", mapping / "images")
    options = BuildOptions(datum=DATUM, T_base_cam=drive.T_base_cam)
    folder = output / "map"
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, folder, options, progress=progress)
    return folder


def _shutter(options: DatasetOptions) -> dict[str, str | float]:
    """Return the shutter settings of the drive's camera."""
    lens = options.lens_of(find_session(options.session))
    return {"camera.readout_s": lens.readout_s, "camera.stamp_row": lens.stamp_row}


def _write_bag(output: Path) -> Path:
    folder = output / "street" / "drive"
    drive = read_posed_images(folder / "meta.json", folder / "images")
    return create_bag(drive, output / "bag", BagOptions(datum=DATUM)).path


def _live(bag: Path, config: Config, output: Path, rate: float, say: Say) -> list[FrameResult]:
    if not live.has_ros():
        say("4/5 skipped: no rclpy here, so no live node (use `make demo`, or source ROS)")
        return []
    say("4/5 starting the node and playing the bag to it over DDS")
    shutter = {f"camera.{name}": str(value) for name, value in config.camera}
    live.run_live(bag, Path(config.map), output, rate, {"node.compressed": "true", **shutter})
    return load_frames(output, bag.with_name(f"{bag.name}.truth.txt"))


def _report_live(frames: list[FrameResult], replayed: ReplayResult, output: Path) -> Summary:
    provenance = {
        "map_sha256": replayed.summary.map_sha256,
        "weights_sha256": replayed.summary.weights_sha256,
    }
    return report_on(output, frames, provenance)


def _largest_difference(frames: list[FrameResult], replayed: ReplayResult) -> float | None:
    poses = {e.stamp_ns: e.T_map_base for e in replayed.estimates if e.T_map_base is not None}
    differences = [
        se3.distance_m(frame.pose.matrix(), T_map_base)
        for frame in frames
        if frame.pose is not None and (T_map_base := poses.get(frame.stamp_ns)) is not None
    ]
    return float(np.max(differences)) if differences else None
