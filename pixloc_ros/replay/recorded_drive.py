"""Read a bag as a recorded drive, from which maps are built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pixloc_ros.common.arguments import Arguments
from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import BagError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.datum import AnyDatum, Datum
from pixloc_ros.maps.files.recorded_drive import (
    RecordedCamera,
    RecordedDrive,
    RecordedFixes,
    RecordedImage,
    RecordedOdometry,
)
from pixloc_ros.priors.gnss import Fix, GnssGate, antenna_base
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    StaticTransformsEvent,
    TransformsEvent,
)
from pixloc_ros.sensors.topics import Topics, is_calibration_file
from pixloc_ros.sensors.vehicle_frames import VehicleFrames


def read_drives(
    bags: str | Path | Sequence[str | Path],
    config: Config | None = None,
    topics: Topics | None = None,
    datum: AnyDatum | None = None,
) -> tuple[RecordedDrive, ...]:
    """Read cameras, odometry and fixes of bags; images are read later, one by one.

    config: `node` names frames and the cameras of a rig, `priors` has the antenna and the limits of
    trusted fixes.
    datum: of the map; if None, the first usable fix of the first bag becomes it.

    Raises BagError for bags that cannot be used, and ConfigError as BagReader does.
    """
    several = [bags] if isinstance(bags, str | os.PathLike) else bags
    arguments = Arguments("read_drives", BagError)
    is_list = isinstance(several, Sequence) and len(several) > 0
    arguments.require(is_list, "bags", bags, "the path of a bag, or a list of paths")
    for bag in several:
        arguments.path("bag", bag)
    arguments.require(isinstance(config, Config | None), "config", config, "a Config")
    arguments.require(isinstance(topics, Topics | None), "topics", topics, "Topics")
    arguments.require(isinstance(datum, AnyDatum | None), "datum", datum, "as Datum.parse makes it")
    drives: list[RecordedDrive] = []
    for bag in several:
        drive = _read_drive(Path(bag), config or Config(), topics, datum)
        datum = datum or drive.datum
        drives.append(drive)
    return tuple(drives)


def _read_drive(
    bag: Path, config: Config, topics: Topics | None, datum: AnyDatum | None
) -> RecordedDrive:
    with BagReader.configured(bag, config.node, topics) as reader:
        frames = VehicleFrames(lambda error: None)
        for event in reader.events(parts=("tf_static",)):
            if isinstance(event, StaticTransformsEvent):
                frames.add_static(event)
        cameras = tuple(_cameras(reader, frames, config))
        poses, fixes = _motion(reader, frames, config)
        image_count = sum(reader.counts[topic] for topic in reader.topics_of("image"))
        notes = tuple(reader.notes)
        identity = _identity(bag, reader)
    found, datum = _fixes(fixes, frames, config, datum)
    return RecordedDrive(
        name=bag.name,
        cameras=cameras,
        odometry=_odometry(poses, config),
        fixes=found,
        datum=datum if found else None,
        image_count=image_count,
        read_images=partial(_images, bag, config, topics),
        identity=identity,
        notes=notes,
    )


def _cameras(reader: BagReader, frames: VehicleFrames, config: Config) -> Iterator[RecordedCamera]:
    """Yield each camera with its first calibration.

    Raises BagError for a camera without calibration or mounting.
    """
    calibrations = reader.calibrations()
    for name in config.node.camera_names:
        info = calibrations[name]
        yield RecordedCamera(name, info.camera, _mounting(reader, info, frames, config))


def _mounting(
    reader: BagReader, info: CameraInfoEvent, frames: VehicleFrames, config: Config
) -> Matrix:
    node = config.node
    frame = node.camera_frame or info.frame_id
    T_base_cam = frames.camera_mounting(frame, node)
    if T_base_cam is None:
        raise BagError(f"bag {reader.path}: {frames.no_mounting(frame, node)} (--set or --config)")
    return T_base_cam


def _motion(
    reader: BagReader, frames: VehicleFrames, config: Config
) -> tuple[list[tuple[int, Matrix]], list[FixEvent]]:
    """Return stamped vehicle poses in the odometry frame, and fixes, in the order of recording."""
    poses: list[tuple[int, Matrix]] = []
    fixes: list[FixEvent] = []
    on_tf = config.node.odom_source == "tf"
    parts = ("tf" if on_tf else "odom", "gnss_fix")
    problem = ""
    for event in reader.events(parts=parts):
        try:
            if isinstance(event, OdometryEvent):
                poses.append((event.stamp_ns, frames.odometry_of_base(event, config.node)))
            elif isinstance(event, TransformsEvent):
                frames.add_moving(event)
                if (pose := frames.odometry_on_tf(config.node)) is not None:
                    poses.append(pose)
            elif isinstance(event, FixEvent):
                fixes.append(event)
        except BadMessage as error:
            problem = str(error)
    if problem and not poses:
        raise BagError(f"bag {reader.path}: {problem}")
    return poses, fixes


def _odometry(poses: list[tuple[int, Matrix]], config: Config) -> RecordedOdometry | None:
    """Sort poses, and start a new epoch at each gap or jump; None without poses."""
    latest = dict(poses)
    if len(latest) < 2:
        return None
    stamps_ns = np.array(sorted(latest), np.int64)
    T = np.stack([latest[int(stamp)] for stamp in stamps_ns])
    elapsed_s = np.diff(stamps_ns) / 1e9
    moved_m = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=-1)
    too_long = elapsed_s > config.priors.odometry_max_gap_s
    too_fast = moved_m > config.priors.odometry_max_speed_mps * np.maximum(elapsed_s, 0.02)
    epoch = np.concatenate([[0], np.cumsum(too_long | too_fast)])
    return RecordedOdometry(stamps_ns, T, epoch)


def _fixes(
    events: list[FixEvent], frames: VehicleFrames, config: Config, datum: AnyDatum | None
) -> tuple[RecordedFixes | None, AnyDatum | None]:
    """Return the fixes that the node would accept, in the axes of the datum, and the datum."""
    fixes: list[Fix] = []
    gate: GnssGate | None = None
    for event in sorted(events, key=lambda event: event.stamp_ns):
        datum = datum or _datum_at(event, config)
        if datum is None:
            continue
        gate = gate or GnssGate(ConfigHolder(config), datum)
        antenna = antenna_base(
            config.priors, frames.lookup_static, config.node.base_frame, event.frame_id
        )
        fix = gate.accept(event, antenna)
        if fix is not None and (not fixes or fix.stamp_ns > fixes[-1].stamp_ns):
            fixes.append(fix)
    if not fixes:
        return None, None
    found = RecordedFixes(
        stamps_ns=np.array([fix.stamp_ns for fix in fixes], np.int64),
        positions_map=np.stack([fix.position_map for fix in fixes]),
        covariance=np.stack([fix.covariance for fix in fixes]),
        antenna_base=np.stack([fix.antenna_base for fix in fixes]),
    )
    return found, datum


def _datum_at(event: FixEvent, config: Config) -> Datum | None:
    """Return a datum at a fix, x pointing east; None if the fix itself is unusable."""
    if not np.isfinite([event.latitude_deg, event.longitude_deg]).all():
        return None
    if abs(event.latitude_deg) > 90 or abs(event.longitude_deg) > 180:
        return None
    datum = Datum(
        latitude_deg=event.latitude_deg,
        longitude_deg=event.longitude_deg,
        altitude_m=event.altitude_m if np.isfinite(event.altitude_m) else 0.0,
        yaw_deg=0.0,
    )
    return datum if GnssGate(ConfigHolder(config), datum).accept(event) else None


def _images(bag: Path, config: Config, topics: Topics | None) -> Iterator[RecordedImage]:
    with BagReader.configured(bag, config.node, topics) as reader:
        for event in reader.events(parts=("image",)):
            if isinstance(event, ImageEvent):
                stamp_ns = event.stamp_ns + config.node.camera_time_offset_ns
                yield RecordedImage(event.camera_name, stamp_ns, partial(event.decode, None))


def _identity(bag: Path, reader: BagReader) -> str:
    """Return what distinguishes a drive from others: its files, and what is read as which input."""
    files = sorted(bag.iterdir()) if bag.is_dir() else [bag]
    files += [Path(topic) for topic in reader.parts.values() if is_calibration_file(topic)]
    read = ",".join(f"{part}={topic}" for part, topic in reader.parts.items())
    stats = ";".join(f"{f.name},{f.stat().st_size},{f.stat().st_mtime_ns}" for f in files)
    return f"{stats};{read}"
