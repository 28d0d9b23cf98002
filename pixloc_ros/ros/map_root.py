"""Find maps by name, but only those below one folder. Needs no ROS."""

from __future__ import annotations

import re
from pathlib import Path

from pixloc_ros.common.foreign_files import is_url, refusing
from pixloc_ros.errors import MapError

_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def find(root: str, name: str) -> str | Path:
    """Return the folder of the map `name` below `root`, links resolved; its URL if `root` is a URL.

    Raises MapError if `root` is empty, or if the name leads out of it or to no folder.
    """
    if not root:
        raise MapError("parameter 'node.map_root' is empty: set it to the folder that holds maps")
    if is_url(root):
        if not _NAME.fullmatch(name):
            raise MapError(f"map '{name}' is not the name of a map below {root}")
        return f"{root.rstrip('/')}/{name}"
    with refusing(MapError, root, "name a folder below it"):  # a name may hold or be anything
        top = Path(root).expanduser().resolve()
        folder = (top / name).resolve()
        if not name or folder == top or not folder.is_relative_to(top):
            raise MapError(f"map '{name}' is not the name of a folder below {top}")
        if not folder.is_dir():
            there = ", ".join(sorted(p.parent.name for p in top.glob("*/map.json"))) or "none"
            raise MapError(f"no map '{name}' below {top}; maps there: {there}")
    return folder
