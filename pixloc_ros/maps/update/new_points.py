"""Points of what a map lacks: where it was blind, or where the world is new.

They are triangulated from the frames of a session whose poses on the map were verified, and
adjusted together with these, while the map stays as it is. Needs pycolmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.common import image_files
from pixloc_ros.common.progress import Progress
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.depth_uncertainty import PointImage, depth_sigmas
from pixloc_ros.maps.build.triangulation import near_pairs
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.update.adjustment import adjust
from pixloc_ros.maps.update.observations import FrameObservations
from pixloc_ros.maps.verified_frames import VerifiedFrame

MIN_FRAMES = 3  # that see a point, and that lack points
MIN_LACKING_SHARE = 0.25  # of the corners of a frame that lacks points
MIN_CORNERS = 30  # of these
ADJUSTMENTS = 2  # of points and poses, each followed by a triangulation
NEAR_M = 8.0  # of frames that lack points: others that see what they see
MAX_ERROR_PX = 2.0  # mean reprojection error of a point


@dataclass(frozen=True, slots=True)
class NewPoints:
    """Points (P,) that the map lacks, and which of them each of some frames sees."""

    first_id: int  # of the first; the others follow
    points_map: Matrix  # (P, 3)
    error_px: NDArray[np.float32]
    frames: tuple[FrameObservations, ...]
    T_map_cam: Matrix  # (F, 4, 4) of these frames, adjusted
    visible: tuple[NDArray[np.intp], ...]  # by frame, ascending indices of points

    def depth_sigmas(self) -> NDArray[np.float32]:
        """Estimate how uncertain the depths of the points are (P,)."""
        images = [
            PointImage(each.frame.camera, se3.inverse(T_map_cam), points)
            for each, T_map_cam, points in zip(
                self.frames, self.T_map_cam, self.visible, strict=True
            )
        ]
        return depth_sigmas(self.points_map, images, self.error_px)

    @classmethod
    def none(cls, first_id: int) -> NewPoints:
        return cls(first_id, np.zeros((0, 3)), np.zeros(0, np.float32), (), np.zeros((0, 4, 4)), ())


def find_new_points(
    observed: Sequence[FrameObservations],
    first_id: int,
    work: Path,
    progress: Progress,
    free: bool = True,
) -> NewPoints:
    """Triangulate what frames show where the map has nothing; work: folder for COLMAP's files.

    free: adjust the poses of the frames as well; otherwise they stay as they are.
    Raises MapError without pycolmap.
    """
    lacking = [each for each in observed if lacks_points(each)]
    if len(lacking) < MIN_FRAMES:
        return NewPoints.none(first_id)
    frames = _with_neighbours(lacking, observed)
    if find_spec("pycolmap") is None:
        raise MapError(
            f"{len(lacking)} frames show what the map lacks; points are triangulated by pycolmap: "
            f"pip install pycolmap, or pass --no-new-points"
        )
    images = [_stored(each.frame, work / f"{i}.jpg") for i, each in enumerate(frames)]
    T_map_cam = np.stack([image.T_map_cam for image in images])
    zero = np.round(np.median(T_map_cam[:, :3, 3], axis=0))  # COLMAP's tolerances are near zero
    T_map_cam[:, :3, 3] -= zero
    run = ColmapRun(work / "colmap", images, progress)
    run.extract()
    run.match(near_pairs(T_map_cam))
    try:
        model = run.reconstruct(T_map_cam)
        for _ in range(ADJUSTMENTS if free else 0):
            T_map_cam = adjust(run, model, frames, T_map_cam, zero)
            model = run.reconstruct(T_map_cam)  # poses that agree give more points
    except MapError:  # the frames share nothing
        return NewPoints.none(first_id)
    T_map_cam[:, :3, 3] += zero
    return _chosen(run, model, frames, T_map_cam, zero, first_id)


def _with_neighbours(
    lacking: Sequence[FrameObservations], observed: Sequence[FrameObservations]
) -> list[FrameObservations]:
    """The frames that lack points, and those around them that hold them to the map."""
    places = cKDTree([each.frame.T_map_cam[:3, 3] for each in lacking])
    near_m, _ = places.query([each.frame.T_map_cam[:3, 3] for each in observed])
    return [
        each for each, m in zip(observed, near_m, strict=True) if m <= NEAR_M and not each.misfits
    ]


def lacks_points(each: FrameObservations) -> bool:
    """Whether the map has nothing where much of a frame's texture is, and the frame can be trusted.

    A frame that the points in its view do not fit may be somewhere else.
    """
    if each.misfits or not len(each.corners_px):
        return False
    open_ = each.open_cells(each.corners_px)
    return bool(open_.sum() >= max(MIN_CORNERS, MIN_LACKING_SHARE * len(open_)))


def _stored(frame: VerifiedFrame, path: Path) -> PosedImage:
    image_files.write(path, frame.read_image(), image_files.IMAGE_QUALITY)
    return PosedImage(path.name, path, frame.camera, frame.T_map_cam)


def _chosen(
    run: ColmapRun,
    model: Any,
    frames: Sequence[FrameObservations],
    T_map_cam: Matrix,
    zero: NDArray[np.float64],
    first_id: int,
) -> NewPoints:
    """The points that enough frames see, well, and mostly where the map has nothing."""
    number = {image_id: run.number(image.name) for image_id, image in model.images.items()}
    points, errors_px, tracks = [], [], []
    for point in model.points3D.values():
        track = {number[e.image_id]: e for e in point.track.elements}
        if len(track) < MIN_FRAMES or not point.error <= MAX_ERROR_PX:
            continue
        pixels = {i: model.images[e.image_id].points2D[e.point2D_idx].xy for i, e in track.items()}
        lacking = [frames[i].open_cells(xy[None] - 0.5)[0] for i, xy in pixels.items()]
        if np.mean(lacking) > 0.5:
            points.append(point.xyz + zero)
            errors_px.append(point.error)
            tracks.append(sorted(track))
    row = np.repeat(np.arange(len(tracks)), [len(track) for track in tracks])
    frame = np.concatenate([np.zeros(0, np.intp), *map(np.array, tracks)])
    return NewPoints(
        first_id=first_id,
        points_map=np.array(points).reshape(-1, 3),
        error_px=np.array(errors_px, np.float32),
        frames=tuple(frames),
        T_map_cam=T_map_cam,
        visible=tuple(row[frame == i] for i in range(len(frames))),
    )
