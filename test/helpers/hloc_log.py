"""A log as hloc's localize_sfm leaves it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from helpers.benchmark_trees import Street
from pixloc_ros.geometry import se3
from pixloc_ros.maps.reference_selection import ReferenceModel


def write_log(path: Path, scenery: Street, known: ReferenceModel, off_m: float) -> None:
    """As hloc's localize_sfm leaves it, with poses that are off and a third of outliers."""
    rng, entries = np.random.default_rng(0), {}
    for shot in scenery.queries:
        near = scenery.nearest(shot, 4)
        seen: dict[int, list[int]] = {}
        for index, reference in enumerate(near):
            for point in reference.point_ids[reference.point_ids >= 0].tolist():
                seen.setdefault(point, []).append(index)
        inliers = rng.random(len(seen)) > 0.33
        off = se3.make(np.eye(3), [off_m, 0, 0]) @ shot.T_cam_world
        entries[shot.path.name] = {
            "db": [known.images[reference.name].image_id for reference in near],
            "PnP_ret": {
                "success": True,
                "qvec": se3.qvec_wxyz(off),
                "tvec": off[:3, 3],
                "num_inliers": int(inliers.sum()),
                "inliers": inliers.tolist(),
                "camera": {"model": "PINHOLE"},
            },
            "keypoint_index_to_db": ([], list(seen.items())),
        }
    path.write_bytes(pickle.dumps({"features": path, "loc": entries}))
