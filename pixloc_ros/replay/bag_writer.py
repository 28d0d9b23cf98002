"""Write a rosbag2 from posed images with simulated sensors, or from a video, without ROS."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer

from pixloc_ros.common.atomic_write import clear_remains, temporary_folder
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import BagError
from pixloc_ros.geometry.trajectory import Trajectory, write_tum
from pixloc_ros.maps.files.posed_images import PosedImages
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.drive_messages import Timed, drive_messages
from pixloc_ros.replay.video_drive import VideoDrive
from pixloc_ros.sensors import topics
from pixloc_ros.sensors.topics import Topics

PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


@dataclass(frozen=True, slots=True)
class BagSummary:
    """What was written to a bag."""

    path: Path
    truth: Path | None
    messages: dict[str, int]  # per topic
    duration_s: float


def truth_path(bag: Path) -> Path:
    """Return the ground-truth file of a bag: beside it, as a bag's folder may hold nothing else."""
    return bag.with_name(f"{bag.name}.truth.txt")


def create_bag(
    drive: PosedImages,
    output: Path,
    options: BagOptions,
    progress: Progress = silent,
) -> BagSummary:
    """Write a rosbag2 folder, and beside it the true poses of its frames (TUM, map_from_base).

    The bag appears when both are complete. Raises BagError if the output exists, DataError for
    unreadable images, and ConfigError for impossible options.
    """
    options.check()
    _refuse_existing(output)
    selected = options.selected(len(drive.files))
    with _temporary_folder(output) as folder:
        # The storage file is named after its folder, so the folder needs its final name already.
        unfinished, truth = folder / output.name, folder / "truth.txt"
        timed = drive_messages(drive, selected, options, progress)
        written = _write(unfinished, timed, options.topics, options.storage)
        write_tum(truth, Trajectory(drive.stamps_ns[selected], drive.T_map_base[selected]))
        truth.replace(truth_path(output))
        unfinished.replace(output)
    return BagSummary(output, truth_path(output), written.messages, written.duration_s)


def create_bag_from_video(
    drive: VideoDrive,
    output: Path,
    storage: str,
    progress: Progress = silent,
) -> BagSummary:
    """Write a rosbag2 folder from a video; it appears when it is complete.

    Raises BagError if the output exists, and DataError for an unusable video.
    """
    _refuse_existing(output)
    with _temporary_folder(output) as folder:
        written = _write(folder / output.name, drive.messages(progress), Topics(), storage)
        written.path.replace(output)
    return replace(written, path=output)


@contextmanager
def _temporary_folder(output: Path) -> Iterator[Path]:
    """Provide a folder beside the output, which is removed in any case."""
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(output) as folder:
            yield folder


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn errors of the file system into one line."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise BagError(f"cannot write bag {output}: {why}") from None


def _refuse_existing(output: Path) -> None:
    with _writing(output):
        clear_remains(output)
    if output.exists():
        raise BagError(f"{output} exists already; remove it or choose another --output")


def _write(folder: Path, timed: Iterable[Timed], names: Topics, storage: str) -> BagSummary:
    store = messages.typestore()
    counts: dict[str, int] = {}
    connections: dict[str, Any] = {}
    stamps_ns: list[int] = []
    with Writer(folder, version=9, storage_plugin=PLUGINS[storage]) as writer:
        for stamp_ns, part, message in timed:
            msgtype = message.__msgtype__
            topic = _topic(part, msgtype, names)
            if topic not in connections:
                qos = [messages.LATCHED] if part == "tf_static" else []
                connections[topic] = writer.add_connection(
                    topic, msgtype, typestore=store, offered_qos_profiles=qos
                )
            writer.write(connections[topic], stamp_ns, store.serialize_cdr(message, msgtype))
            counts[topic] = counts.get(topic, 0) + 1
            stamps_ns.append(stamp_ns)
    duration_s = (max(stamps_ns) - min(stamps_ns)) / 1e9
    return BagSummary(folder, None, counts, duration_s)


def _topic(part: str, msgtype: str, names: Topics) -> str:
    if msgtype == topics.COMPRESSED_IMAGE and "image" not in names.chosen:
        return names.compressed_image
    if msgtype == topics.FFMPEG_PACKET and "image" not in names.chosen:
        return f"{names.image}/ffmpeg"
    return getattr(names, part)
