"""Record what a localizer publishes, as the files of a run that `pixloc evaluate` reads.

    recorder OUTPUT [--node pixloc_localizer] [--report [BAG]]

Every status becomes a line of frames.jsonl, with the pose of the same stamp if there is one. With
--report, the poses are plotted, and compared with the ground truth next to the bag if there is any;
the figures are printed as a table and, for programs that read logs, as a line of JSON after
JSON_MARK.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console

from pixloc_ros.common.atomic_write import check_writable
from pixloc_ros.errors import PixlocError
from pixloc_ros.evaluation.frames import (
    FRAMES_FILE,
    VERIFICATION_FIELDS,
    FrameResult,
    PoseRecord,
    Sigma,
    trajectory_of,
    write_frames,
)
from pixloc_ros.evaluation.report import TRAJECTORY_FILE, report_on
from pixloc_ros.evaluation.sources import load_frames
from pixloc_ros.evaluation.tables import summary_table
from pixloc_ros.geometry.trajectory import write_tum
from pixloc_ros.msg import AlignmentStatus
from pixloc_ros.replay.bag_writer import truth_path
from pixloc_ros.ros.executable import StopSignals
from pixloc_ros.sensors import decoding

POLL_S = 0.1  # how soon a signal is noticed
JSON_MARK = "pixloc_report "
QUEUE = 1000  # so that nothing is lost while the disk is busy


class Recorder(Node):
    """Subscribes to a localizer's `~/pose` and `~/status`."""

    def __init__(self, node: str) -> None:
        super().__init__("pixloc_recorder")
        self._poses: dict[int, tuple[PoseRecord, Sigma]] = {}
        self._statuses: dict[int, AlignmentStatus] = {}
        self.taken = 0  # messages received so far
        self.create_subscription(PoseWithCovarianceStamped, f"{node}/pose", self._on_pose, QUEUE)
        self.create_subscription(AlignmentStatus, f"{node}/status", self._on_status, QUEUE)

    def frames(self) -> list[FrameResult]:
        """Return one result per status, ordered by stamp."""
        return [self._frame(stamp_ns) for stamp_ns in sorted(self._statuses)]

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        self.taken += 1
        pose = PoseRecord.of(decoding.pose(message.pose.pose))
        covariance = np.reshape(message.pose.covariance, (6, 6))
        self._poses[decoding.stamp_ns(message.header)] = pose, Sigma.of(covariance)

    def _on_status(self, message: AlignmentStatus) -> None:
        self.taken += 1
        self._statuses[decoding.stamp_ns(message.header)] = message

    def _frame(self, stamp_ns: int) -> FrameResult:
        status = self._statuses[stamp_ns]
        pose, sigma = self._poses.get(stamp_ns, (None, None))
        stages = dict(zip(status.stages, status.stages_ms, strict=True))
        return FrameResult(
            name=str(stamp_ns),
            stamp_ns=stamp_ns,
            status=status.status,
            reason=status.reason,
            message=status.message,
            pose=pose,
            sigma=sigma,
            cost=status.cost,
            inlier_share=status.inlier_share,
            iterations=tuple(status.iterations),
            hypotheses=status.hypotheses,
            condition=status.condition,
            points=status.points,
            **{name: getattr(status, name) for name in VERIFICATION_FIELDS},
            wrong_probability=status.wrong_probability,
            protection_level_m=status.protection_level_m,
            protection_risk=status.protection_risk,
            ambiguity_m=status.ambiguity_m,
            keyframes=tuple(status.keyframes),
            timing_ms={**stages, "total": status.latency_ms},
        )


def main(stop: StopSignals, args: Sequence[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM, then write the files; return the exit status."""
    argv = list(sys.argv if args is None else args)
    options = _options(remove_ros_args(argv)[1:])
    try:
        check_writable(options.output / FRAMES_FILE)  # now, not after the drive
        return _record(stop, argv, options)
    except PixlocError as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 1


def _record(stop: StopSignals, argv: Sequence[str], options: argparse.Namespace) -> int:
    rclpy.init(args=list(argv), signal_handler_options=SignalHandlerOptions.NO)
    # launch and its terminal may both send a signal: files are written even after a second one.
    stop.grace_s = None
    executor = SingleThreadedExecutor()
    executor.add_node(recorder := Recorder(options.node))
    while not stop.requested:
        executor.spin_once(POLL_S)
    _take_queued_messages(executor, recorder)
    rclpy.shutdown()
    frames = recorder.frames()
    if not frames:
        print("recorder: no frame was received, nothing to write", file=sys.stderr)
        return 1
    write(options.output, frames)
    if options.report is not None:
        report(options.output, truth_path(options.report) if options.report.name else None)
    return 0


def _take_queued_messages(executor: SingleThreadedExecutor, recorder: Recorder) -> None:
    """Process messages that arrived before the end: on a busy machine they may still be queued."""
    before = -1
    while recorder.taken > before:
        before = recorder.taken
        executor.spin_once(POLL_S)


def write(output: Path, frames: list[FrameResult]) -> None:
    """Write frames.jsonl and, if any frame was localized, trajectory.txt."""
    write_frames(output / FRAMES_FILE, frames)
    write_tum(output / TRAJECTORY_FILE, trajectory_of(frames))


def report(output: Path, truth: Path | None) -> None:
    """Write summary.json, plots and report.md to the output folder, and print the figures."""
    frames = load_frames(output, truth if truth and truth.is_file() else None)
    summary = report_on(output, frames, {})
    Console().print(summary_table(summary, str(output)))
    print(JSON_MARK + summary.model_dump_json())


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="recorder", description="Record a localizer's poses.")
    parser.add_argument("output", type=Path, help="folder for frames.jsonl and trajectory.txt")
    parser.add_argument("--node", default="/pixloc_localizer", help="full name of the localizer")
    parser.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=Path(),
        help="report at the end; with the bag that was played, against the ground truth next to it",
    )
    return parser.parse_args(argv)
