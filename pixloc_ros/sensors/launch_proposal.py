"""Choose which of a robot's topics to give to the localizer, and write a launch file for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from pixloc_ros.errors import BagError
from pixloc_ros.sensors import topics

# Substrings of the names of image topics that are not camera images, or are drawings.
NO_CAMERA = ("depth", "disparity", "mask", "label", "overlay", "debug", "thermal")
CLOCK = "rosgraph_msgs/msg/Clock"


@dataclass(frozen=True, slots=True)
class LaunchProposal:
    """Arguments for localizer.launch.py, and the topics that might have been meant instead."""

    arguments: dict[str, str]
    others: dict[str, list[str]]  # by argument, topics of the same type

    def command(self) -> str:
        """Return the shell command."""
        words = [f"{name}:={value}" for name, value in self.arguments.items()]
        return " ".join(["ros2 launch pixloc_ros localizer.launch.py", *words])

    def launch_file(self) -> str:
        """Return a launch file in YAML; topics that were not chosen are comments."""
        arguments = [{"name": name, "value": value} for name, value in self.arguments.items()]
        file = "$(find-pkg-share pixloc_ros)/launch/localizer.launch.py"
        content = {"launch": [{"include": {"file": file, "arg": arguments}}]}
        others = [
            f"# {name} might also be {', '.join(o)}\n" for name, o in self.others.items() if o
        ]
        head = "# Written by `pixloc doctor --live --write`: check topics and paths.\n"
        return head + "".join(others) + yaml.safe_dump(content, sort_keys=False)


def propose(types: Mapping[str, str], map_folder: str = "") -> LaunchProposal:
    """Choose topics by type and, among several of a type, by name.

    types: type by name of all published topics. Raises BagError if no topic has camera images.
    """
    images = sorted({_raw(name) for name, kind in types.items() if _is_camera(name, kind)})
    if not images:
        raise BagError("no topic has the images of a camera")
    calibrations = {name: info for name in images if (info := _calibration(name, types))}
    image = min(calibrations or images, key=lambda name: ("front" not in name, name))
    odometry = _of(types, topics.ODOMETRY)
    fixes = _of(types, topics.NAV_SAT_FIX)
    arguments = {"map": map_folder or "/path/to/map", "image_topic": image}
    if image in calibrations:
        arguments["camera_info_topic"] = calibrations[image]
    else:
        arguments["camera_info_url"] = "/path/to/camera.yaml"
    if odometry:
        arguments["odom_topic"] = min(odometry, key=lambda name: ("filtered" not in name, name))
    if fixes:
        arguments["gnss_topic"] = fixes[0]
    if CLOCK in types.values():
        arguments["use_sim_time"] = "true"
    chosen = set(arguments.values())
    others = {
        "image_topic": [name for name in calibrations or images if name not in chosen],
        "odom_topic": [name for name in odometry if name not in chosen],
        "gnss_topic": [name for name in fixes if name not in chosen],
    }
    return LaunchProposal(arguments, others)


def _is_camera(name: str, kind: str) -> bool:
    is_image = kind in topics.TYPES["image"]
    return is_image and not any(word in name.lower() for word in NO_CAMERA)


def _raw(name: str) -> str:
    """Return the raw topic that a topic of image_transport belongs to, as image_topic names it."""
    for end in topics.TRANSPORTS:
        name = name.removesuffix(end)
    return name


def _calibration(image: str, types: Mapping[str, str]) -> str | None:
    """Return the calibration topic beside an image topic, by the convention of image_transport."""
    beside = f"{image.rpartition('/')[0]}/camera_info"
    return beside if types.get(beside) == topics.CAMERA_INFO else None


def _of(types: Mapping[str, str], kind: str) -> list[str]:
    return _sorted(name for name, each in types.items() if each == kind)


def _sorted(names: Iterable[str]) -> list[str]:
    """Sort by name, without the topics that localizers publish."""
    return sorted(name for name in names if "pixloc_localizer/" not in name)
