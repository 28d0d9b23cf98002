"""Where a drive meets itself: keyframes placed by points of another pass through the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import SEED, ColmapRun, matrix
from pixloc_ros.maps.build.from_bag.trajectory import Loop

MIN_INLIERS = 25
MAX_ERROR_PX = 6.0


def find_loops(
    run: ColmapRun,
    reconstruction: Any,
    T_base_cam: Matrix,
    moment_of: Sequence[int],
    pairs: Sequence[tuple[int, int]],
) -> list[Loop]:
    """Relative poses between moments, from pairs of images (i, j) that show the same place.

    reconstruction: a pycolmap.Reconstruction with points. T_base_cam: (N, 4, 4) by image;
    moment_of: by image, the index of its moment.
    """
    images = {run.number(image.name): image for image in reconstruction.images.values()}
    loops = []
    with run.pycolmap.Database.open(run.database) as database:
        for first, second in pairs:
            points, pixels = _shared(database, reconstruction, images[first], images[second])
            T_cam_map = _place(run, images[second].camera, points, pixels)
            if T_cam_map is None:
                continue
            T_first_second = (
                T_base_cam[first]
                @ matrix(images[first].cam_from_world())
                @ se3.inverse(T_cam_map)
                @ se3.inverse(T_base_cam[second])
            )
            loops.append(Loop(moment_of[first], moment_of[second], T_first_second))
    return loops


def _shared(database: Any, reconstruction: Any, first: Any, second: Any) -> tuple[Matrix, Matrix]:
    """Points (N, 3) that the first image sees, and pixels (N, 2) that match them in the second."""
    none = np.zeros((0, 3)), np.zeros((0, 2))
    if not database.exists_two_view_geometry(first.image_id, second.image_id):
        return none
    geometry = database.read_two_view_geometry(first.image_id, second.image_id)
    points, pixels = [], []
    for a, b in np.asarray(geometry.inlier_matches).reshape(-1, 2).tolist():
        keypoint = first.point2D(a)
        if keypoint.has_point3D():
            points.append(reconstruction.point3D(keypoint.point3D_id).xyz)
            pixels.append(second.point2D(b).xy)
    return (np.array(points), np.array(pixels)) if points else none


def _place(run: ColmapRun, camera: Any, points: Matrix, pixels: Matrix) -> Matrix | None:
    """T_cam_map (4, 4) of a camera that sees points (N, 3) at pixels (N, 2); None if too few do."""
    if len(points) < MIN_INLIERS:
        return None
    options = run.pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error, options.ransac.random_seed = MAX_ERROR_PX, SEED
    with run.quiet():
        found = run.pycolmap.estimate_and_refine_absolute_pose(pixels, points, camera, options)
    if found is None or found["num_inliers"] < MIN_INLIERS:
        return None
    return matrix(found["cam_from_world"])
