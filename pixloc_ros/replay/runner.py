"""Localize along a bag: read it, replay it, write the files of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pixloc_ros.common.atomic_write import check_writable, write_text
from pixloc_ros.common.file_backed import FileBackedArrays
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import Config
from pixloc_ros.errors import BagError, DataError
from pixloc_ros.evaluation.frames import FrameResult, frame_result
from pixloc_ros.evaluation.metrics import Summary
from pixloc_ros.evaluation.partial_run import PartialRun
from pixloc_ros.evaluation.report import SUMMARY_FILE, LoadImage, write_report, write_run
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.trajectory import Trajectory, read_tum
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.rejections import WORDS
from pixloc_ros.replay import session_recording
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.bag_writer import truth_path
from pixloc_ros.replay.session_recording import check_new
from pixloc_ros.sensors.events import Event
from pixloc_ros.sensors.topics import TYPES, Topics
from pixloc_ros.session import Answer, Session
from pixloc_ros.types import Estimate, Reason
from pixloc_ros.visualization.recording import record, rerun_sdk

CONFIG_FILE = "config.yaml"  # the resolved configuration of this run, usable with --config


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of replaying a bag."""

    estimates: list[Estimate]
    summary: Summary
    output: Path
    notes: list[str]  # what users should know about the bag: damage, refused messages, loops


def replay(
    bag: Path,
    config: Config,
    output: Path,
    ground_truth: Path | None = None,
    topics: Topics | None = None,
    every: int = 1,
    report: bool = True,
    view: Path | None = None,
    progress: Progress = silent,
    record_session: Path | None = None,
) -> ReplayResult:
    """Localize all images of a bag and write the files of the run to a folder.

    While it goes on, and if it is stopped, its frames are in `PartialRun`'s folder of the output.

    ground_truth: TUM file, map_from_base; by default the one that `pixloc bag create` wrote beside
    the bag.
    view: file for the rerun viewer; needs rerun-sdk.
    record_session: new folder for the accepted frames, as a node records them.

    Raises BagError, MapError and other PixlocErrors before anything is written.
    """
    if view is not None:
        rerun_sdk()
    if output.exists() and not output.is_dir():
        raise DataError(f"--output {output} is a file; name a folder")
    check_writable(output / SUMMARY_FILE)
    if record_session is not None:
        check_new(record_session)
    truth = _truth(bag, ground_truth)
    with BagReader.configured(bag, config.node, topics) as reader:
        # Before hours of a replay that would localize nothing.
        first, *_ = reader.calibrations().values()
        localizer = Localizer(config)
        session = Session(localizer)
        total = -(-reader.image_count // every)
        answered = _answered(session, reader, every, localizer.map, record_session)
        localizing = progress(_checked(answered, reader), "localizing", total)
        with PartialRun(output, total, _provenance(reader, localizer, [])) as partial:
            answers = list(_kept(localizing, partial, truth))
            if not answers:
                raise BagError(f"bag {bag} holds no readable image")
            notes = _notes(reader, session)
            provenance = _provenance(reader, localizer, notes)
            estimates, frames = [list(column) for column in zip(*answers, strict=True)]
            summary = write_run(output, estimates, frames, provenance)
        write_text(output / CONFIG_FILE, yaml.safe_dump(config.model_dump(mode="json")))
        load_image = image_loader(reader, config)
        if report:
            keyframes_xyz = localizer.map.keyframe_T_map_cam[:, :3, 3]
            write_report(output, estimates, frames, summary, load_image, keyframes_xyz)
        if view is not None:
            _record(view, localizer.map, first.camera, estimates, load_image, truth, progress)
    return ReplayResult(estimates, summary, output, notes)


def _answered(
    session: Session, reader: BagReader, every: int, map_: Map, folder: Path | None
) -> Iterator[Estimate]:
    """Yield the estimates of a drive, and record it to a session folder if one is given."""
    events = drive_events(reader, every)
    if folder is None:
        return session.run(events)
    spacing_m = session.config.node.session_spacing_m
    return session_recording.recorded(session.answers(events), folder, map_, spacing_m)


def _kept(
    estimates: Iterable[Estimate], partial: PartialRun, truth: Trajectory | None
) -> Iterator[tuple[Estimate, FrameResult]]:
    """Yield estimates with their records, and keep each on disk at once.

    An estimate's points, which only pictures need, are in files instead of in memory: 66 kB.
    """
    arrays = FileBackedArrays(partial.folder)
    for estimate in estimates:
        frame = frame_result(estimate, truth)
        partial.add(frame)
        alignment = estimate.alignment and estimate.alignment.with_point_arrays(arrays.keep)
        yield dataclasses.replace(estimate, alignment=alignment), frame


def localize_drive(
    reader: BagReader,
    localizer: Localizer,
    progress: Progress = silent,
    events: Iterable[Event] | None = None,
) -> Iterable[Answer]:
    """Return the answers to all images of a bag, as the live node would give them.

    events: of the bag, if something in them was changed.
    """
    answers = Session(localizer).answers(drive_events(reader) if events is None else events)
    return progress(answers, "localizing", reader.image_count)


def drive_events(reader: BagReader, every: int = 1) -> Iterator[Event]:
    """Yield a bag's events in the order of recording, but /tf_static first: it is always valid."""
    yield from reader.events(parts=("tf_static",))
    yield from reader.events(parts=TYPES.keys() - {"tf_static"}, every=every)


def _record(
    path: Path,
    map: Map,
    camera: Camera,
    estimates: list[Estimate],
    load_image: LoadImage,
    truth: Trajectory | None,
    progress: Progress,
) -> None:
    frames = progress(estimates, "recording the view", len(estimates))
    with_images = ((estimate, load_image(estimate)) for estimate in frames)
    record(path, map.points_map(), map.keyframe_T_map_cam[:, :3, 3], camera, with_images, truth)


def _truth(bag: Path, ground_truth: Path | None) -> Trajectory | None:
    if ground_truth is None:
        beside = truth_path(bag.resolve())
        ground_truth = beside if beside.exists() else None
    return read_tum(ground_truth) if ground_truth else None


def _checked(estimates: Iterator[Estimate], reader: BagReader) -> Iterator[Estimate]:
    """Pass estimates on. Raises BagError if the mounting of a camera is missing in the bag."""
    for estimate in estimates:
        if estimate.reason is Reason.NO_EXTRINSICS:
            raise BagError(f"bag {reader.path}: {estimate.message} (--set or --config)")
        yield estimate


def image_loader(reader: BagReader, config: Config) -> LoadImage:
    """Return a function that reads an estimate's image again; it returns None if it cannot."""
    offset_ns = config.node.camera_time_offset_ns

    def load(estimate: Estimate) -> NDArray[np.uint8] | None:
        event = reader.image(estimate.stamp_ns - offset_ns, next(iter(estimate.cameras), ""))
        return event.image_rgb if event else None

    return load


def _notes(reader: BagReader, session: Session) -> list[str]:
    """List what users should know about the bag: everything unusual that was counted."""
    unusual = [line for line in session.counters.lines() if not _is_usual(line[0])]
    rejected = session.tracker.rejected.items()
    counts = [(f"prior.rejected.{reason}", _count(reason, n)) for reason, n in rejected]
    notes = [*reader.notes, *(f"{name}: {line}" for name, line in sorted(unusual + counts))]
    if complaint := session.mounting.complaint():
        notes.append(f"{complaint}; see `pixloc calibrate`")
    return notes


def _count(reason: str, count: int) -> str:
    return f"{count}: {WORDS[reason]}" if reason in WORDS else str(count)


def _is_usual(name: str) -> bool:
    return name.endswith(".received") or name.startswith("frame.")


def _provenance(reader: BagReader, localizer: Localizer, notes: list[str]) -> dict[str, Any]:
    return {
        "map_sha256": localizer.map.sha256,
        "weights_sha256": localizer.features.sha256,
        "bag": reader.path.name,
        "topics": ", ".join(f"{part} {topic}" for part, topic in reader.parts.items()),
        "notes": "; ".join(notes) or "none",
    }
