"""hloc's logs of a localization (`..._logs.pkl`): which points each query matched, and where.

They are pickles, which can run code when they are loaded; of these only numbers are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.common.numbers_file import load_numbers
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3


@dataclass(frozen=True, slots=True)
class QueryLog:
    """What hloc knew of one query."""

    T_cam_world: NDArray[np.float64] | None  # (4, 4); None: not localized, or in no number here
    references: tuple[int, ...]  # image ids of the model
    points: tuple[int, ...]  # id of the point of each match
    observed_by: tuple[tuple[int, ...], ...]  # for each match, indices into references
    inliers: tuple[bool, ...]  # of each match


def read_logs(path: Path) -> dict[str, QueryLog]:
    """Read the logs of all queries by name; raises DataError for a file that is none of hloc's."""
    with refusing(DataError, path, "is it a log of hloc's localize_sfm?"):
        content = load_numbers(path.read_bytes())
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
