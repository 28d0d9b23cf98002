"""Start the programs of this package so that SIGINT and SIGTERM end them with status 0 at any time.

    python -m pixloc_ros.ros.executable node|bag_player|recorder ARGUMENTS

The installed executables do the same. Importing rclpy and torch takes seconds and this module
imports neither, so a signal is answered from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib import import_module
from types import FrameType
from typing import NoReturn

from pixloc_ros.common.process import prepare_process


class StopSignals:
    """Notices SIGINT and SIGTERM without interrupting the running code.

    `requested` becomes True and the program shuts down cleanly. If it has not ended after `grace_s`
    seconds, the process ends with status 0 all the same; None sets no limit. Pass
    `SignalHandlerOptions.NO` to `rclpy.init`: its own handlers would shut down the context while
    callbacks run. Create it in the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self.grace_s: float | None = 0.0
        # A thread hears of the signal even while the main thread is busy in compiled code.
        self._signals, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, name="pixloc_signals", daemon=True).start()

    def _watch(self) -> None:
        os.read(self._signals, 1)
        self.requested = True
        if self.grace_s is not None:
            time.sleep(self.grace_s)
            os._exit(0)


def run(program: str) -> NoReturn:
    """Run a module of this package that has `main(stop) -> status` and end the process."""
    stop = StopSignals()
    prepare_process()
    status = import_module(f"pixloc_ros.ros.{program}").main(stop=stop)
    end(status)


def end(status: int) -> NoReturn:
    """End the process at once.

    Shutting down torch keeps the interpreter busy for seconds, in which it could not answer a
    signal with status 0.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the watching thread acts."""


if __name__ == "__main__":
    run(sys.argv.pop(1))
