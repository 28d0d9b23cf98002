"""Check the arguments of the launch file before anything is started.

Imports neither rclpy nor torch, so that a wrong argument is reported at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixloc_ros import config
from pixloc_ros.common.foreign_files import is_url
from pixloc_ros.common.ros_urls import local_path
from pixloc_ros.errors import BagError, ConfigError, MapError

SWITCHES = ("use_sim_time", "private_tf", "managed", "rviz", "loop", "record")
LEVELS = ("debug", "info", "warn", "error", "fatal")
SETTINGS = {
    "map": "map",
    "device": "device",
    "cameras": "node.cameras",
    "camera_info_url": "node.camera_info_url",
}


def check(arguments: Mapping[str, str]) -> None:
    """Raise ConfigError, MapError or BagError for the first argument that cannot be used."""
    for name in SWITCHES:
        if not (is_true(arguments[name]) or arguments[name].lower() in ("false", "0")):
            raise ConfigError(f"{name}:={arguments[name]}: expected true or false")
    if arguments["log_level"].lower() not in LEVELS:
        raise ConfigError(f"log_level:={arguments['log_level']}: expected {', '.join(LEVELS)}")
    settings = _settings(arguments)
    _check_map(settings.map)
    _check_calibrations(settings.node)
    if arguments["bag"]:
        _check_bag(Path(arguments["bag"]).expanduser())
        _check_rate(arguments["rate"])
    if arguments["bag"] or is_true(arguments["record"]):
        _check_output(Path(arguments["output"]).expanduser())


def is_true(text: str) -> bool:
    """Return whether a value means true."""
    return text.lower() in ("true", "1")


def _settings(arguments: Mapping[str, str]) -> config.Config:
    """Return the settings of the file, overridden by the arguments."""
    content = config.read_yaml(arguments["params_file"])
    sections = [value for value in content.values() if _is_section(value)]
    given = {SETTINGS[name]: arguments[name] for name in SETTINGS if arguments[name]}
    if len(sections) == 1:  # with several sections, only the node knows which one is its own
        return config.load(arguments["params_file"], given)
    return config.from_flat(given)


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) and "ros__parameters" in value


def _check_map(folder: str) -> None:
    if not folder:
        raise MapError("no map: give its folder or URL, map:=/maps/campus, or set it in a file")
    if is_url(folder):  # the node reports an unreachable URL, and may have the map in its cache
        return
    if not (Path(folder).expanduser() / "map.json").is_file():
        raise MapError(f"map:={folder}: not a map (no map.json); is the path right?")


def _check_calibrations(settings: config.NodeConfig) -> None:
    for url in settings.camera_info_urls.values():
        if not local_path(url, ConfigError).is_file():
            raise ConfigError(f"camera_info_url:={url}: there is no such file")


def _check_bag(bag: Path) -> None:
    inside = bag.iterdir() if bag.is_dir() else [bag]
    if not any(file.suffix in (".mcap", ".db3") and file.is_file() for file in inside):
        raise BagError(f"bag:={bag}: no rosbag2 there (a folder or file of .mcap or .db3)")


def _check_rate(text: str) -> None:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate:={text}: expected a number above zero")


def _check_output(folder: Path) -> None:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"output:={folder}: cannot be written below {nearest}")
