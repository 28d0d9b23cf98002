"""Files as ROS names them: by path, or by the URLs of camera_info_manager. Needs no ROS."""

from __future__ import annotations

import os
from pathlib import Path

from pixloc_ros.common.foreign_files import Refusal, is_url

_FILE, _PACKAGE = "file://", "package://"


def local_path(location: str, refusal: Refusal) -> Path:
    """Return the path of a file given by a path, `file:///...` or `package://NAME/...`.

    ${ROS_HOME} is replaced. Raises `refusal` for another URL, or a package that is not installed.
    """
    home = os.environ.get("ROS_HOME") or str(Path.home() / ".ros")
    location = location.replace("${ROS_HOME}", home)
    if location.startswith(_PACKAGE):
        return _in_package(location, refusal)
    if is_url(location) and not location.startswith(f"{_FILE}/"):
        raise refusal(f"'{location}': expected a path, {_FILE}/PATH or {_PACKAGE}NAME/PATH")
    return Path(location.removeprefix(_FILE)).expanduser()


def _in_package(url: str, refusal: Refusal) -> Path:
    """Return the path of a file below the share folder of an installed package."""
    name, _, file = url.removeprefix(_PACKAGE).partition("/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / name
        if prefix and name and share.is_dir():
            return share / file
    raise refusal(f"'{url}': package '{name}' is not installed; is its workspace sourced?")
