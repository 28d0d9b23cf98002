"""`pixloc`: assemble all commands, and print every expected error as one clean line."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import typer
from rich.console import Console

from pixloc_ros.common.process import prepare_process
from pixloc_ros.errors import PixlocError, one_line

MAX_LINE = 2000  # characters of an error with its notes

# Command or group -> module and attribute. Modules are imported when the command line is built:
# modules of commands are light, those of groups import torch.
COMMANDS = {
    "localize": "pixloc_ros.cli.replay:localize",
    "localize-published": "pixloc_ros.cli.localize_published:localize_published",
    "replay": "pixloc_ros.cli.replay:replay",
    "view": "pixloc_ros.cli.view:view",
    "evaluate": "pixloc_ros.cli.evaluate:evaluate",
    "evaluate-dataset": "pixloc_ros.cli.evaluate_dataset:evaluate_dataset",
    "calibrate": "pixloc_ros.cli.calibrate:calibrate",
    "shots": "pixloc_ros.cli.shots:shots",
    "benchmark": "pixloc_ros.cli.benchmark:benchmark",
    "train": "pixloc_ros.cli.train:train",
    "export": "pixloc_ros.cli.export:export",
    "demo": "pixloc_ros.cli.demo:demo",
    "doctor": "pixloc_ros.cli.doctor:doctor",
    "config": "pixloc_ros.cli.config:config",
}
GROUPS = {
    "map": ("pixloc_ros.cli.map:app", "Build, inspect and verify maps."),
    "verification": (
        "pixloc_ros.cli.verification:app",
        "Record evidence, fit the probability of being wrong, and judge it.",
    ),
    "bag": ("pixloc_ros.cli.bag:app", "Make rosbag2 bags from images and poses."),
}


def build(called: str | None = None) -> typer.Typer:
    """Build the command line.

    called: the command or group that is wanted; other groups are added without their commands.
    """
    app = typer.Typer(
        help="Where am I on this map? Localize a camera by aligning deep features.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, (target, text) in GROUPS.items():
        group = _load(target) if called in (None, name) else _group_without_commands()
        app.add_typer(group, name=name, help=text)
    for name, target in COMMANDS.items():
        app.command(name)(_load(target))
    return app


def _group_without_commands() -> typer.Typer:
    group = typer.Typer()
    group.callback()(lambda: None)
    return group


def _load(target: str):  # type: ignore[no-untyped-def]
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    """Run the command line; exit with 0 when done, 1 after an expected error, 2 for wrong usage."""
    prepare_process()  # before the commands import torch
    called = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    run(lambda: build(called)())


def run(app: Callable[[], object]) -> None:
    """Run an app; every expected error becomes one line and exit code 1."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except PixlocError as error:
        _end(f"error: {error}", error, 1)
    except OSError as error:  # such as a full or read-only disk, anywhere
        where = f"{error.filename}: " if error.filename else ""
        _end(f"error: {where}{error.strerror or error}", error, 1)
    except _Interruption as interruption:
        _end("interrupted", interruption, 128 + signal.SIGINT, otherwise="nothing is kept")


class _Interruption(BaseException):
    """Raised by Ctrl-C; notes say what is kept. Typer reduces a KeyboardInterrupt to one word."""


def _interrupt(signum: int, frame: object) -> None:
    raise _Interruption


def _end(line: str, error: BaseException, code: int, otherwise: str = "") -> NoReturn:
    """Print one line, with notes on what is kept and how to continue, and exit."""
    notes = getattr(error, "__notes__", []) or [otherwise]
    _print(one_line("; ".join([line, *filter(None, notes)]), MAX_LINE))
    sys.exit(code)


def _print(line: str) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(line, style="red", markup=False, highlight=False)


if __name__ == "__main__":
    main()
