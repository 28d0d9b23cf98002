"""Find out what is missing on this machine or robot, and name the remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pixloc_ros.errors import MapError, PixlocError
from pixloc_ros.sensors import video


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `needed`: the package cannot do its main job without it."""

    subject: str
    fine: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def examine(map_folder: str | Path | None = None) -> Iterator[Finding]:
    """Run all checks in turn and yield what they find; none of them raises."""
    yield _python()
    for name in ("torch", "numpy", "cv2", "scipy", "pydantic", "safetensors", "rosbags"):
        yield _module(name, f"pip install {name.replace('cv2', 'opencv-python-headless')}")
    yield _accelerator()
    yield _weights()
    yield _module("rclpy", "source the ROS setup file, or `make setup`", needed=False)
    yield _module("pixloc_ros.msg", "build with colcon and source its setup", needed=False)
    yield _module("tf2_msgs", "install ros-$ROS_DISTRO-tf2-msgs, or `make setup`", needed=False)
    yield _module("pycolmap", "pip install pycolmap; only to build maps", needed=False)
    yield _module("av", f"{video.REMEDY}; only for images as H.264 or H.265", needed=False)
    yield _module("aiohttp", "pip install 'pixloc_ros[remote]'; only for maps behind a URL", False)
    yield _discovery()
    if map_folder is not None:
        yield _map(map_folder)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("Python", sys.version_info >= (3, 11), version, "use Python 3.11 or newer")


def _module(name: str, remedy: str, needed: bool = True) -> Finding:
    try:
        found = find_spec(name) is not None
        module = import_module(name) if found else None
    except Exception as error:  # a broken installation raises anything
        return Finding(name, False, f"does not import: {error}", remedy, needed)
    version = getattr(module, "__version__", "present") if module else "absent"
    return Finding(name, found, str(version), "" if found else remedy, needed)


def _accelerator() -> Finding:
    def check() -> str:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0)
        return f"none, {torch.get_num_threads()} CPU threads: device=cpu"

    return _checked("accelerator", check, "install a CUDA build of torch", needed=False)


def _weights() -> Finding:
    def check() -> str:
        from pixloc_ros.features import weights

        return ", ".join(weights.load(name).model_id for name in weights.available())

    return _checked("weights", check, "install the package again")


def _map(folder: str | Path) -> Finding:
    def check() -> str:
        from pixloc_ros.maps.map import Map

        loaded = Map.load(folder)
        served = sum(1 for _ in loaded.tiles.sound())
        if refused := loaded.tiles.refused.values():
            raise MapError(f"{served} of {len(loaded.tiles)} tiles serve; " + "; ".join(refused))
        return f"{len(loaded.keyframe_names)} keyframes, {loaded.point_count} points"

    return _checked(f"map {folder}", check, "build or copy the map again")


def _discovery() -> Finding:
    scope = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET (default)")
    domain = os.environ.get("ROS_DOMAIN_ID", "0 (default)")
    detail = f"range {scope}, domain {domain}"
    return Finding("ROS discovery", True, detail, needed=False)


def _checked(subject: str, check: Callable[[], str], remedy: str, needed: bool = True) -> Finding:
    try:
        return Finding(subject, True, check(), "", needed)
    except (PixlocError, ImportError, RuntimeError) as error:
        return Finding(subject, False, str(error), remedy, needed)
