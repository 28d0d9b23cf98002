"""Write files for visuallocalization.net: lines `name qw qx qy qz tx ty tz`, world to camera.

The name is the last part of the path, or the last two if cameras have folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix


def write(path: Path, T_cam_world: Mapping[str, Matrix], parts: int = 1) -> Path:
    """Write poses by query name. Raises DataError if shortened names collide.

    parts: how many parts of the name's path, counted from its end, the server expects.
    """
    lines: dict[str, str] = {}
    for name, T in T_cam_world.items():
        short = "/".join(name.split("/")[-parts:])
        if short in lines:
            raise DataError(f"two queries are called {short}: their results cannot be told apart")
        numbers = " ".join(f"{value:.12g}" for value in (*se3.qvec_wxyz(T), *T[:3, 3]))
        lines[short] = f"{short} {numbers}\n"
    write_text(path, "".join(lines.values()))
    return path
