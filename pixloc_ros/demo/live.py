"""The live part of the demo: the node, a recorder and a bag player, each a process of its own."""

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
SETTLE_S = 2.0  # for the last frame to be worked on


def ros_is_here() -> bool:
    """Whether rclpy and our messages can be imported, without importing them."""
    return all(find_spec(name) for name in ("rclpy", "pixloc_ros.msg", "tf2_msgs"))


def run_live(
    bag: Path, map_folder: Path, output: Path, rate: float = 1.0, settings: Mapping[str, str] = {}
) -> Path:
    """Play a bag to the node over DDS, on this machine only; returns the folder of the run.

    Raises PixlocError when one of the processes fails; all of them have ended in any case.
    """
    parameters = [f"map:={map_folder.resolve()}", *(f"{k}:={v}" for k, v in settings.items())]
    ros_args = [arg for parameter in parameters for arg in ("-p", parameter)]
    output.mkdir(parents=True, exist_ok=True)
    with (
        _process("node", ["--ros-args", *ros_args], output),
        _process("recorder", [str(output)], output),
    ):
        player = _start("bag_player", [str(bag), "--rate", str(rate)], output)
        _wait(player, output)
        time.sleep(SETTLE_S)
    if not (output / FRAMES_FILE).is_file():
        raise PixlocError(f"the recorder wrote nothing: see the logs in {output}")
    return output


@contextmanager
def _process(module: str, arguments: list[str], output: Path) -> Iterator[None]:
    process = _start(module, arguments, output)
    try:
        yield
        if process.poll() is not None:
            raise PixlocError(f"the {module} ended early: see {output / module}.log")
    finally:
        _stop(process)


def _start(module: str, arguments: list[str], output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"pixloc_ros.ros.{module}", *arguments]
    with (output / f"{module}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=_environment())


def _environment() -> dict[str, str]:
    # Whatever the caller's shell says, a demo never talks to robots on the network.
    return {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def _wait(player: subprocess.Popen[bytes], output: Path) -> None:
    try:
        if player.wait() != 0:
            raise PixlocError(f"the bag player failed: see {output / 'bag_player'}.log")
    finally:
        _stop(player)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
