"""The node as it is, but for an aligner that fails when it is told to.

    python faulty_node.py ORDERS --ros-args ...

The file ORDERS names the fault of the frames to come; while it is empty all is well. With `wait`
a frame lasts as long as the file says so.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from pixloc_ros.config import Config
from pixloc_ros.localizer import Localizer
from pixloc_ros.ros import node
from pixloc_ros.ros.executable import StopSignals, end

SLOW_S = 0.5


def taken(orders: Path) -> Path:
    """The file that is there once a frame waits."""
    return orders.with_suffix(".taken")


class FaultyAligner:
    """Another aligner's answers, if any."""

    def __init__(self, aligner: Any, orders: Path) -> None:
        self._aligner = aligner
        self._orders = orders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aligner, name)

    def align(self, *arguments: Any) -> Any:
        order = self._orders.read_text()
        if order == "out of memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if order == "defect":
            raise IndexError("list index\nout of range")
        if order == "slow":
            time.sleep(SLOW_S)
        if order == "wait":
            taken(self._orders).touch()
        while self._orders.read_text() == "wait":
            time.sleep(0.01)
        return self._aligner.align(*arguments)


class FaultyLocalizer(Localizer):
    """Aligns through a FaultyAligner."""

    def aligner(self, config: Config) -> Any:
        return FaultyAligner(super().aligner(config), Path(sys.argv[1]))


def main(stop: StopSignals) -> int:
    node.Localizer = FaultyLocalizer  # type: ignore[misc]
    return node.main(stop, [sys.argv[0], *sys.argv[2:]])


if __name__ == "__main__":
    end(main(StopSignals()))
