"""Where a drive meets itself: keyframes placed by points of another pass through the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import SEED, ColmapRun, matrix
from pixloc_ros.maps.build.from_bag.trajectory import Loop

MIN_INLIERS = 25
MAX_ERROR_PX = 6.0
COLMAP_CENTER_PX = 0.5  # of the top-left pixel; ours is at zero


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Two images of one place: the loop, and keypoints that match."""

    loop: Loop
    keypoints: Matrix  # (M, 2, 3) image, column and row, of the first and the second image

    @property
    def images(self) -> tuple[int, int]:
        """Their numbers."""
        first, second = self.keypoints[0, :, 0].astype(np.int64).tolist()
        return first, second


def find_meetings(
    run: ColmapRun,
    reconstruction: Any,
    T_base_cam: Matrix,
    moment_of: Sequence[int],
    pairs: Sequence[tuple[int, int]],
) -> list[Meeting]:
    """Relative poses between moments, of those pairs of images (i, j) that show the same place.

    reconstruction: a pycolmap.Reconstruction with points. T_base_cam: (N, 4, 4) by image;
    moment_of: by image, the index of its moment.
    """
    images = {run.number(image.name): image for image in reconstruction.images.values()}
    meetings = []
    with run.pycolmap.Database.open(run.database) as database:
        for first, second in pairs:
            matches = _matches(database, images[first], images[second])
            points, pixels = _shared(reconstruction, images[first], images[second], matches)
            T_cam_map = place(run, images[second].camera, points, pixels)
            if T_cam_map is None:
                continue
            T_first_second = (
                T_base_cam[first]
                @ matrix(images[first].cam_from_world())
                @ se3.inverse(T_cam_map)
                @ se3.inverse(T_base_cam[second])
            )
            loop = Loop(moment_of[first], moment_of[second], T_first_second)
            keypoints = np.array(
                [
                    [(first, *images[first].point2D(a).xy), (second, *images[second].point2D(b).xy)]
                    for a, b in matches
                ]
            )
            keypoints[..., 1:] -= COLMAP_CENTER_PX
            meetings.append(Meeting(loop, keypoints))
    return meetings


def _matches(database: Any, first: Any, second: Any) -> list[list[int]]:
    """Verified pairs of keypoints, by their indices."""
    if not database.exists_two_view_geometry(first.image_id, second.image_id):
        return []
    geometry = database.read_two_view_geometry(first.image_id, second.image_id)
    found: list[list[int]] = np.asarray(geometry.inlier_matches).reshape(-1, 2).tolist()
    return found


def _shared(
    reconstruction: Any, first: Any, second: Any, matches: Sequence[Sequence[int]]
) -> tuple[Matrix, Matrix]:
    """Points (N, 3) that the first image sees, and pixels (N, 2) that match them in the second."""
    points, pixels = [], []
    for a, b in matches:
        keypoint = first.point2D(a)
        if keypoint.has_point3D():
            points.append(reconstruction.point3D(keypoint.point3D_id).xyz)
            pixels.append(second.point2D(b).xy)
    return np.reshape(points, (-1, 3)), np.reshape(pixels, (-1, 2))


def place(run: ColmapRun, camera: Any, points: Matrix, pixels: Matrix) -> Matrix | None:
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
