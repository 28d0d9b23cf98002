"""The programs end with status 0 on SIGINT and SIGTERM, whenever these come."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

START = [sys.executable, "-m", "pixloc_ros.ros.executable"]


def answers_signals(process: subprocess.Popen[Any]) -> bool:
    """Whether the program has begun: Python alone does not catch SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if "SigCgt" in line).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def started(log: Path, domain: int, *arguments: object) -> subprocess.Popen[bytes]:
    """A program that has just begun, long before it has imported what it needs."""
    from helpers.live import environment

    command = [*START, *map(str, arguments)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment(domain))
    while not answers_signals(process):
        assert process.poll() is None
        time.sleep(0.001)
    return process


def assert_ends_in_order(process: subprocess.Popen[bytes], log: Path) -> None:
    from helpers.live import PATIENCE_S

    try:
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert "ignored" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "moments_s"),
    [(signal.SIGINT, (0.0, 1.5, 3.0)), (signal.SIGTERM, (0.5, 2.0))],
)
def test_a_node_that_is_starting_ends_on_a_signal(
    street: Path, tmp_path: Path, domain: int, stop: signal.Signals, moments_s: tuple[float, ...]
) -> None:
    """While it imports, creates itself, loads its map and has just begun to listen."""
    log = tmp_path / "log.txt"
    for moment_s in moments_s:
        process = started(log, domain, "node", "--ros-args", "-p", f"map:={street / 'map'}")
        time.sleep(moment_s)
        process.send_signal(stop)
        assert_ends_in_order(process, log)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("gap_s", [0.0, 0.1])
def test_a_node_that_is_ending_keeps_to_it_when_told_again(
    street: Path, tmp_path: Path, domain: int, gap_s: float
) -> None:
    from helpers.live import Rig, running_node

    log = tmp_path / "log.txt"
    with running_node(log, domain, map=street / "map") as process, Rig(domain) as rig:
        rig.until(lambda: rig.lifecycle_state() == "active", "an active node")
        for stop in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(stop)
            time.sleep(gap_s)
        assert_ends_in_order(process, log)


@pytest.mark.ros
@pytest.mark.slow
def test_the_recorder_writes_at_once_and_ends_in_order_when_told_twice(
    tmp_path: Path, domain: int
) -> None:
    """Frames: refused; accepted, with the pose before and after the status; without its pose."""
    from geometry_msgs.msg import PoseWithCovarianceStamped

    from helpers.live import Rig
    from helpers.programs import watched
    from pixloc_ros.evaluation.frames import read_frames
    from pixloc_ros.msg import AlignmentStatus
    from pixloc_ros.ros.conversions import header

    ok, failed = AlignmentStatus.STATUS_OK, AlignmentStatus.STATUS_FAILED
    run, log = tmp_path / "run", tmp_path / "log.txt"
    process = started(log, domain, "recorder", run)
    with watched(process, log, domain), Rig(domain) as rig:
        statuses = rig.node.create_publisher(AlignmentStatus, "/pixloc_localizer/status", 10)
        poses = rig.node.create_publisher(PoseWithCovarianceStamped, "/pixloc_localizer/pose", 10)
        for publisher in (statuses, poses):
            rig.until(lambda p=publisher: p.get_subscription_count() == 2, "recorder beside rig")

        def publish_status(stamp_ns: int, status: str) -> None:
            message = AlignmentStatus(status=status, reason="ok", localized=status == ok)
            message.header = header(stamp_ns, "map")
            statuses.publish(message)

        def publish_pose(stamp_ns: int) -> None:
            message = PoseWithCovarianceStamped(header=header(stamp_ns, "map"))
            message.pose.pose.position.x = float(stamp_ns)
            poses.publish(message)

        publish_pose(3)
        publish_status(4, ok)
        publish_status(1, failed)
        publish_status(2, ok)
        publish_pose(2)
        publish_status(3, ok)
        rig.until(
            lambda: (
                (run / "partial/frames.jsonl").is_file() and len(read_frames(run / "partial")) == 3
            ),
            "all frames but the one whose pose is missing on disk",
        )
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    assert_ends_in_order(process, log)
    found = [(f.stamp_ns, f.pose and f.pose.xyz[0]) for f in read_frames(run)]
    assert found == [(1, None), (2, 2.0), (3, 3.0), (4, None)]
    assert not (run / "partial").exists()


@pytest.mark.ros
def test_a_recorder_that_could_not_write_says_so_before_the_drive(tmp_path: Path, capsys) -> None:
    from pixloc_ros.ros import recorder

    (tmp_path / "file").touch()
    ended = SimpleNamespace(requested=True, grace_s=0.0)
    assert recorder.main(ended, ["recorder", str(tmp_path / "file" / "run")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("moment_s", [0.0, 0.3, 1.0])
def test_a_bag_player_ends_on_a_signal(
    street: Path, tmp_path: Path, domain: int, moment_s: float
) -> None:
    log = tmp_path / "log.txt"
    process = started(log, domain, "bag_player", street / "bag")
    time.sleep(moment_s)
    process.send_signal(signal.SIGINT)
    assert_ends_in_order(process, log)
