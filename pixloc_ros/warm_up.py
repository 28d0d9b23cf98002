"""Make a localizer ready to answer its first frame at once."""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakSet

import numpy as np

from pixloc_ros.errors import MapError
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.localizer import Localizer
from pixloc_ros.types import Frame, PosePrior

# Vague about one axis, so that several initial poses are drawn, but few.
SIGMA_M, SIGMA_DEG, SIGMA_YAW_DEG = 0.1, 0.1, 5.0

_ready: WeakSet[Localizer] = WeakSet()


def warm_up(localizer: Localizer) -> None:
    """Localize noise at a keyframe of the map.

    A program's first frame takes a second longer than the next ones: libraries are loaded, memory
    is allocated, and on a GPU kernels are compiled. Does nothing the second time, nor for a map
    behind a URL, of which it would fetch a tile.
    """
    map_ = localizer.map
    if localizer in _ready or map_.tiles.fetcher is not None:
        return
    _ready.add(localizer)
    camera = map_.cameras[map_.keyframe_camera[0]]
    noise = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    frame = Frame(noise, camera, stamp_ns=0, T_base_cam=np.eye(4))
    covariance = diagonal(SIGMA_M, SIGMA_DEG)
    covariance[5, 5] = np.deg2rad(SIGMA_YAW_DEG) ** 2
    prior = PosePrior(map_.keyframe_T_map_cam[0], covariance, "warm-up", 0)
    with suppress(MapError):  # of a damaged tile; a frame that needs it will say so
        localizer.localize(frame, prior)
