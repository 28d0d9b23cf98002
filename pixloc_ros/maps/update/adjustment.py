"""New points and the frames that see them, adjusted together while the map is held.

What the map's points tell of a frame's pose is told by where they are in its image, once it was
localized: there they are observed, and they do not move. So a pose is held the more firmly, the
better the map determined it, and what its new points say counts as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.update.observations import FrameObservations

MIN_HELD = 20  # points of the map in a frame that may move


def adjust(
    run: ColmapRun,
    reconstruction: Any,
    frames: Sequence[FrameObservations],
    T_map_cam: Matrix,
    zero: NDArray[np.float64],
) -> Matrix:
    """Adjust new points of a reconstruction, and poses (N, 4, 4) of its images; returns these.

    zero: (3,) the reconstruction's origin on the map.
    """
    held = _observe_map(run, reconstruction, frames, zero)
    problem = run.pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.reg_image_ids():
        problem.add_image(image_id)
        image = reconstruction.image(image_id)
        if sum(point.point3D_id in held for point in image.get_observation_points2D()) < MIN_HELD:
            problem.set_constant_rig_from_world_pose(image.frame_id)
    for point_id in held:
        problem.add_constant_point(point_id)
    options = run.adjustment_options()
    with run.quiet():
        run.pycolmap.create_default_bundle_adjuster(options, problem, reconstruction).solve()
    for point_id in held:
        reconstruction.delete_point3D(point_id)
    reconstruction.update_point_3d_errors()
    return run.poses(reconstruction, T_map_cam)


def _observe_map(
    run: ColmapRun,
    reconstruction: Any,
    frames: Sequence[FrameObservations],
    zero: NDArray[np.float64],
) -> set[int]:
    """Add points of the map that two frames see or more (COLMAP takes no others).

    Returns their ids in the reconstruction.
    """
    observed = np.concatenate([each.point_ids[each.present] for each in frames])
    ids, counts = np.unique(observed, return_counts=True)
    points: dict[int, NDArray[np.float64]] = {}
    tracks: dict[int, Any] = defaultdict(run.pycolmap.Track)
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        each = frames[run.number(image.name)]
        for row in np.flatnonzero(each.present & np.isin(each.point_ids, ids[counts > 1])).tolist():
            point_id = int(each.point_ids[row])
            points[point_id] = each.points_map[row] - zero
            tracks[point_id].add_element(image_id, len(image.points2D))
            image.points2D.append(run.pycolmap.Point2D(each.pixels[row].astype(float) + 0.5))
    return {reconstruction.add_point3D(points[i], track) for i, track in tracks.items()}
