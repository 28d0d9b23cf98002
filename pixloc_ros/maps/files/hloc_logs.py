"""hloc's logs of a localization (`..._logs.pkl`): which points each query matched, and where.

They are pickles, which can run code when they are loaded. Here only numbers, strings, lists and
arrays are made of them; any other class becomes an empty object.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3

_SAFE = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "defaultdict"),
    ("collections", "OrderedDict"),
    ("builtins", "list"),
    ("builtins", "set"),
    ("builtins", "dict"),
}


@dataclass(frozen=True, slots=True)
class QueryLog:
    """What hloc knew of one query."""

    T_cam_world: NDArray[np.float64] | None  # (4, 4); None: not localized, or in no number here
    references: tuple[int, ...]  # image ids of the model
    points: tuple[int, ...]  # id of the point of each match
    observed_by: tuple[tuple[int, ...], ...]  # for each match, indices into references
    inliers: tuple[bool, ...]  # of each match


class _Unknown:
    """Stands for an object of a class that is not loaded."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Numbers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAFE:
            return super().find_class(module, name)
        return _Unknown


def read_logs(path: Path) -> dict[str, QueryLog]:
    """Read the logs of all queries by name; raises DataError for a file that is none of hloc's."""
    with refusing(DataError, path, "is it a log of hloc's localize_sfm?"):
        content = _Numbers(io.BytesIO(path.read_bytes())).load()
        return {name: _log(entry) for name, entry in content["loc"].items() if "db" in entry}


def _log(entry: dict[str, Any]) -> QueryLog:
    pnp = entry.get("PnP_ret") or {}
    matched = entry["keypoint_index_to_db"][1]
    inliers = pnp.get("inliers", pnp.get("inlier_mask", np.zeros(len(matched), bool)))
    T_cam_world = None
    if "qvec" in pnp and pnp.get("success", True):
        T_cam_world = se3.from_qvec_wxyz(pnp["qvec"], np.asarray(pnp["tvec"], float))
    return QueryLog(
        T_cam_world=T_cam_world,
        references=tuple(int(i) for i in entry["db"]),
        points=tuple(int(point) for point, _ in matched),
        observed_by=tuple(tuple(int(i) for i in seen) for _, seen in matched),
        inliers=tuple(bool(inlier) for inlier in inliers),
    )
