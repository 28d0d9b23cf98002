"""Run the demo live: the node, a recorder and a bag player, each in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pixloc_ros.errors import PixlocError
from pixloc_ros.evaluation.frames import FRAMES_FILE

STOP_TIMEOUT_S = 20.0
POLL_S = 0.2
SETTLE_S = 2.0  # for the last frame to be processed


def has_ros() -> bool:
    """Return whether rclpy and our messages can be imported, without importing them."""
    return all(find_spec(name) for name in ("rclpy", "pixloc_ros.msg", "tf2_msgs"))


def run_live(
    bag: Path, map_folder: Path, output: Path, rate: float = 1.0, settings: Mapping[str, str] = {}
) -> Path:
    """Play a bag to the node over DDS, on this machine only; return the folder of the run.

    Raises PixlocError if one of the processes fails. All of them have ended in any case.
    """
    parameters = [f"map:={map_folder.resolve()}", *(f"{k}:={v}" for k, v in settings.items())]
    ros_args = [arg for parameter in parameters for arg in ("-p", parameter)]
    output.mkdir(parents=True, exist_ok=True)
    with (
        _process("node", ["--ros-args", *ros_args], output) as node,
        _process("recorder", [str(output)], output) as recorder,
        _process("bag_player", [str(bag), "--rate", str(rate)], output) as player,
    ):
        while player.poll() is None:
            _check_running(output, node=node, recorder=recorder)
            time.sleep(POLL_S)
        if player.returncode != 0:
            raise PixlocError(f"the bag player failed: see {output / 'bag_player'}.log")
        time.sleep(SETTLE_S)
        _check_running(output, node=node, recorder=recorder)
    if not (output / FRAMES_FILE).is_file():
        raise PixlocError(f"the recorder wrote nothing: see the logs in {output}")
    return output


@contextmanager
def _process(module: str, arguments: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "pixloc_ros.ros.executable", module, *arguments]
    # Whatever the environment says, a demo must not talk to robots on the network.
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with (output / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        _stop(process)


def _check_running(output: Path, **processes: subprocess.Popen[bytes]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise PixlocError(f"the {name} ended early: see {output / name}.log")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
