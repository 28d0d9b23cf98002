"""Measure how well a map localizes the queries of earlier drives that it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import Config
from pixloc_ros.evaluation.shots import Offset
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import perturb_base
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.held_queries import HeldQuery, HeldScore
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, PosePrior

NEAR_M, NEAR_DEG = 0.25, 2.0
PRIOR = Offset(distance_m=1.0, angle_deg=2.0)


def score(
    config: Config, map_: Map, queries: Sequence[HeldQuery], progress: Progress = silent
) -> HeldScore:
    """Localize queries from priors that are off by 1 m and 2 degrees, equal for every map."""
    localizer, errors_m = Localizer(config, map_), []
    for index, query in progress(enumerate(queries), "Localizing held queries", len(queries)):
        frame = Frame(query.image_rgb(), query.camera, index, query.T_base_cam)
        error = PRIOR.draw(np.random.default_rng(index))
        T_map_base = perturb_base(query.T_map_base, error)
        prior = PosePrior(T_map_base, PRIOR.covariance(), "held", index)
        found = localizer.localize(frame, prior).T_map_base
        if found is not None and _near(found, query.T_map_base):
            errors_m.append(se3.distance_m(found, query.T_map_base))
    median_m = float(np.median(errors_m)) if errors_m else 0.0
    return HeldScore(len(errors_m) / max(len(queries), 1), median_m)


def _near(found: np.ndarray, believed: np.ndarray) -> bool:
    near = se3.distance_m(found, believed) <= NEAR_M
    return near and se3.angle_deg(found, believed) <= NEAR_DEG
