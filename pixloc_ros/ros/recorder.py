"""Record what a localizer publishes, as the files of a run that `pixloc evaluate` reads.

    recorder OUTPUT [--node pixloc_localizer] [--report [BAG]]

Every status becomes a line of frames.jsonl, with the pose of the same stamp if there is one. During
the drive, lines are written at once to OUTPUT/partial, so that memory does not grow and a kill
loses nothing but the last frames; at the end the files move to OUTPUT. With --report, the poses are
plotted, and compared with the ground truth next to the bag if there is any; the figures are printed
as a table and, for programs that read logs, as a line of JSON after JSON_MARK.
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
)
from pixloc_ros.evaluation.partial_run import PartialRun
from pixloc_ros.evaluation.report import report_on
from pixloc_ros.evaluation.sources import load_frames
from pixloc_ros.evaluation.tables import summary_table
from pixloc_ros.msg import AlignmentStatus
from pixloc_ros.replay.bag_writer import truth_path
from pixloc_ros.ros.executable import StopSignals
from pixloc_ros.sensors import decoding

POLL_S = 0.1  # how soon a signal is noticed
JSON_MARK = "pixloc_report "
QUEUE = 1000  # so that nothing is lost while the disk is busy
MAX_WAITING = 100  # statuses without their pose, and the reverse: the two may come in any order


class Recorder(Node):
    """Subscribes to a localizer's `~/pose` and `~/status`, and adds its frames to a run."""

    def __init__(self, node: str, run: PartialRun) -> None:
        super().__init__("pixloc_recorder")
        self._run = run
        self._poses: dict[int, tuple[PoseRecord, Sigma]] = {}  # whose status has not come yet
        self._statuses: dict[int, AlignmentStatus] = {}  # accepted, whose pose has not come yet
        self.taken = 0  # messages received so far
        self.create_subscription(PoseWithCovarianceStamped, f"{node}/pose", self._on_pose, QUEUE)
        self.create_subscription(AlignmentStatus, f"{node}/status", self._on_status, QUEUE)

    def write_waiting(self, at_most: int = 0) -> None:
        """Write the oldest statuses without a pose, until at most so many wait for theirs."""
        while len(self._statuses) > at_most:
            stamp_ns = next(iter(self._statuses))
            self._write(stamp_ns, self._statuses.pop(stamp_ns))

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        self.taken += 1
        pose = PoseRecord.of(decoding.pose(message.pose.pose))
        covariance = np.reshape(message.pose.covariance, (6, 6))
        stamp_ns = decoding.stamp_ns(message.header)
        self._poses[stamp_ns] = pose, Sigma.of(covariance)
        if (status := self._statuses.pop(stamp_ns, None)) is not None:
            self._write(stamp_ns, status)
        while len(self._poses) > MAX_WAITING:
            del self._poses[next(iter(self._poses))]

    def _on_status(self, message: AlignmentStatus) -> None:
        self.taken += 1
        stamp_ns = decoding.stamp_ns(message.header)
        if message.localized and stamp_ns not in self._poses:
            self._statuses[stamp_ns] = message
            self.write_waiting(at_most=MAX_WAITING)
        else:
            self._write(stamp_ns, message)

    def _write(self, stamp_ns: int, status: AlignmentStatus) -> None:
        pose, sigma = self._poses.pop(stamp_ns, (None, None))
        self._run.add(_frame(stamp_ns, status, pose, sigma))


def _frame(
    stamp_ns: int, status: AlignmentStatus, pose: PoseRecord | None, sigma: Sigma | None
) -> FrameResult:
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
    """Record until SIGINT or SIGTERM; return the exit status."""
    argv = list(sys.argv if args is None else args)
    options = _options(remove_ros_args(argv)[1:])
    try:
        check_writable(options.output / FRAMES_FILE)  # now, not after the drive
        return _record(stop, argv, options)
    except PixlocError as error:
        kept = getattr(error, "__notes__", [])
        print("; ".join([f"recorder: {error}", *kept]), file=sys.stderr)
        return 1


def _record(stop: StopSignals, argv: Sequence[str], options: argparse.Namespace) -> int:
    rclpy.init(args=list(argv), signal_handler_options=SignalHandlerOptions.NO)
    # launch and its terminal may both send a signal: files are written even after a second one.
    stop.grace_s = None
    executor = SingleThreadedExecutor()
    with PartialRun(options.output, keep_older=True) as run:
        executor.add_node(recorder := Recorder(options.node, run))
        while not stop.requested:
            executor.spin_once(POLL_S)
        _take_queued_messages(executor, recorder)
        rclpy.shutdown()
        recorder.write_waiting()
        if run.count == 0:
            print("recorder: no frame was received, nothing to write", file=sys.stderr)
            return 1
        run.publish()
    if options.report is not None:
        report(options.output, truth_path(options.report) if options.report.name else None)
    return 0


def _take_queued_messages(executor: SingleThreadedExecutor, recorder: Recorder) -> None:
    """Process messages that arrived before the end: on a busy machine they may still be queued."""
    before = -1
    while recorder.taken > before:
        before = recorder.taken
        executor.spin_once(POLL_S)


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
