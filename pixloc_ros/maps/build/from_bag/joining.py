"""Chunks of a drive joined in one frame: one pose per keyframe, one point per track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag.chunks import PlacedChunk
from pixloc_ros.maps.build.from_bag.loops import COLMAP_CENTER_PX, Meeting, place
from pixloc_ros.maps.build.from_bag.trajectory import Loop
from pixloc_ros.maps.build.tracks import DistinctCameras, JoinedTracks, sums
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel

MATCH_PX = 10.0  # that a point may be off where another pass through the place shows it


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """What the chunks say of the poses of a drive, and how far they differ where they overlap."""

    placed: NDArray[np.bool_]  # (N,)
    first: NDArray[np.int64]  # (K,) of a step from image to image
    second: NDArray[np.int64]  # (K,)
    T_first_second: Matrix  # (K, 4, 4) of the vehicle
    seam_m: NDArray[np.float64]  # (S,) by image that two chunks have
    seam_deg: NDArray[np.float64]  # (S,)

    def __str__(self) -> str:
        if not len(self.seam_m):
            return "no keyframe is in two chunks"
        return (
            f"keyframes of two chunks differ by {100 * np.median(self.seam_m):.1f} cm and "
            f"{np.median(self.seam_deg):.2f} deg (median), {100 * self.seam_m.max():.1f} cm and "
            f"{self.seam_deg.max():.2f} deg at most"
        )


def ties(chunks: Sequence[PlacedChunk], T_base_cam: Matrix) -> Ties:
    """What chunks say of N images; T_base_cam: (N, 4, 4).

    Of two chunks that have a step, the one counts in which its images are farther from an end.
    """
    count = len(T_base_cam)
    inside = np.full((len(chunks), count), -1)  # images to the chunk's nearer end
    T = np.tile(np.eye(4), (len(chunks), count, 1, 1))
    for c, chunk in enumerate(chunks):
        n, own = np.arange(len(chunk.images)), slice(chunk.images.start, chunk.images.stop)
        inside[c, own] = np.where(chunk.placed, np.minimum(n, n[::-1]), -1)
        T[c, own] = chunk.T_map_cam
    placed = inside.max(axis=0) >= 0
    index = np.flatnonzero(placed)
    i, j = index[:-1], index[1:]
    both = np.minimum(inside[:, i], inside[:, j])
    known, c = both.max(axis=0) >= 0, both.argmax(axis=0)
    T_map_base = T @ se3.inverse(T_base_cam)
    step = se3.inverse(T_map_base[c, i]) @ T_map_base[c, j]
    a, k = np.nonzero((inside[:-1] >= 0) & (inside[1:] >= 0))
    pairs = list(zip(T[a, k], T[a + 1, k], strict=True))
    return Ties(
        placed=placed,
        first=i[known],
        second=j[known],
        T_first_second=step[known],
        seam_m=np.array([se3.distance_m(*pair) for pair in pairs]),
        seam_deg=np.array([se3.angle_deg(*pair) for pair in pairs]),
    )


def loops_between(
    run: ColmapRun,
    chunks: Sequence[PlacedChunk],
    meetings: Sequence[Meeting],
    T_base_cam: Matrix,
    cameras: Sequence[Camera],
) -> list[Loop]:
    """Loops of meetings by the points of the chunks, which are adjusted: better than before.

    T_base_cam: (N, 4, 4) by image.
    """
    ends = np.array([chunk.images.stop for chunk in chunks])
    loops = []
    for meeting in meetings:
        first, second = meeting.images
        chunk = chunks[int(np.searchsorted(ends, first, "right"))]
        point = chunk.shown(first, meeting.keypoints[:, 0, 1:])
        pixels = meeting.keypoints[point >= 0, 1, 1:] + COLMAP_CENTER_PX
        points = chunk.points[point[point >= 0]]
        T_cam_map = place(run, run.camera(cameras[second]), points, pixels)
        if T_cam_map is not None:
            T_first = chunk.T_map_cam[first - chunk.images.start] @ se3.inverse(T_base_cam[first])
            T_second = se3.inverse(T_base_cam[second] @ T_cam_map)
            T = se3.inverse(T_first) @ T_second
            loops.append(replace(meeting.loop, T_first_second=T))
    return loops


def join_tracks(
    chunks: Sequence[PlacedChunk],
    meetings: Sequence[Meeting],
    T_map_cam: Matrix,
    cameras: Sequence[Camera],
) -> JoinedTracks:
    """Points of all chunks, moved with the keyframes (N, 4, 4) that see them, each once.

    Points that one keypoint shows are one, and so are those of keypoints that match where chunks
    meet again, unless the poses contradict.
    """
    starts = np.cumsum([0, *(len(chunk.points) for chunk in chunks)])
    point = np.concatenate([c.point + start for c, start in zip(chunks, starts, strict=False)])
    moved = np.concatenate([_moved(chunk, T_map_cam) for chunk in chunks])
    seen = [np.column_stack([chunk.image, chunk.pixels]) for chunk in chunks]
    matched = [meeting.keypoints.reshape(-1, 3) for meeting in meetings]
    keypoints, number = np.unique(np.concatenate([*seen, *matched]), axis=0, return_inverse=True)
    of_point, match = number[: len(point)], number[len(point) :].reshape(-1, 2)
    shows = np.bincount(of_point, minlength=len(keypoints))
    tracks = JoinedTracks(
        image=keypoints[:, 0].astype(np.int64),
        point=np.arange(len(keypoints)),
        pixels=keypoints[:, 1:],
        points=sums(of_point, moved, len(keypoints)) / np.maximum(shows, 1)[:, None],
        cameras=DistinctCameras.of(cameras),
    )
    match = match[_agree(tracks, shows > 0, match, T_map_cam)]
    rows = np.concatenate([of_point, match[:, 0]])
    columns = np.concatenate([len(keypoints) + point, match[:, 1]])
    nodes = len(keypoints) + int(starts[-1])
    same = sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), (nodes, nodes))
    _, group = connected_components(same, directed=False)
    return tracks.grouped(group[: len(keypoints)], shows)


def _agree(
    tracks: JoinedTracks, known: NDArray[np.bool_], match: NDArray[np.int64], T_map_cam: Matrix
) -> NDArray[np.bool_]:
    """(M,) whether the point of each of two keypoints, where it is known, is where the other is.

    tracks: of as many points as keypoints. match: (M, 2) keypoints.
    """
    good = known[match].any(axis=1)
    for own, other in (match.T, match[:, ::-1].T):
        crossed = replace(
            tracks,
            image=tracks.image[other],
            point=np.arange(len(match)),
            pixels=tracks.pixels[other],
            points=tracks.points[own],
        )
        good &= ~known[own] | (crossed.errors_px(T_map_cam) <= MATCH_PX)
    return np.asarray(good)


def _moved(chunk: PlacedChunk, T_map_cam: Matrix) -> Matrix:
    """(O, 3) the point of each observation, in the same place for the image as in the chunk."""
    change = T_map_cam[chunk.images.start : chunk.images.stop] @ se3.inverse(chunk.T_map_cam)
    T = change[chunk.image - chunk.images.start]
    return np.einsum("kij,kj->ki", T[:, :3, :3], chunk.points[chunk.point]) + T[:, :3, 3]


def model_of(
    tracks: JoinedTracks, T_map_cam: Matrix, placed: NDArray[np.bool_]
) -> tuple[ColmapModel, float]:
    """The model of the images that are placed at poses (N, 4, 4), and its mean error in pixels.

    Images are named by their numbers, as those of a ColmapRun.
    """
    error_px = tracks.errors_px(T_map_cam)
    images, T_cam_map = [], se3.inverse(T_map_cam)
    order = np.argsort(tracks.image, kind="stable")
    bounds = np.searchsorted(tracks.image[order], np.arange(len(placed) + 1))
    for number in np.flatnonzero(placed).tolist():
        own = order[bounds[number] : bounds[number + 1]]
        images.append(
            ColmapImage(
                image_id=number,
                name=f"{number:08d}",
                camera_id=int(tracks.cameras.of_image[number]),
                T_cam_world=T_cam_map[number],
                pixels=tracks.pixels[own],
                point_ids=tracks.point[own],
            )
        )
    count = len(tracks.points)
    model = ColmapModel(
        cameras=dict(enumerate(tracks.cameras.distinct)),
        images=tuple(images),
        unregistered=tuple(f"{i:08d}" for i in np.flatnonzero(~placed).tolist()),
        point_ids=np.arange(count),
        points_world=tracks.points,
        errors_px=np.bincount(tracks.point, error_px, count)
        / np.bincount(tracks.point, None, count),
    )
    return model, float(model.errors_px.mean())
