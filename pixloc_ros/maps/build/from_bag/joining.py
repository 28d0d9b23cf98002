"""Chunks of a drive joined in one frame: one pose per keyframe, one point per track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag.adjustment import LOSS_PX, MAX_ERROR_PX
from pixloc_ros.maps.build.from_bag.chunks import PlacedChunk
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel

ROUNDS = 2  # of adjusting points and leaving out what does not fit
ITERATIONS = 5  # of a point's adjustment
DAMPING = 1e-6  # of a point's normal equations, as a share of their diagonal


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """What the chunks say of the poses of a drive, and how far they differ where they overlap."""

    T_map_cam: Matrix  # (N, 4, 4) by the chunk in which the image is farthest from an end
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


def ties(chunks: Sequence[PlacedChunk], T_start: Matrix, T_base_cam: Matrix) -> Ties:
    """What chunks say of N images; T_start (N, 4, 4) is for those that none of them placed.

    T_base_cam: (N, 4, 4). Of two chunks that have a step, the one counts in which its images are
    farther from an end.
    """
    count = len(T_start)
    inside = np.full((len(chunks), count), -1)  # images to the chunk's nearer end
    T = np.tile(T_start, (len(chunks), 1, 1, 1))
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
        T_map_cam=T[inside.argmax(axis=0), np.arange(count)],
        placed=placed,
        first=i[known],
        second=j[known],
        T_first_second=step[known],
        seam_m=np.array([se3.distance_m(*pair) for pair in pairs]),
        seam_deg=np.array([se3.angle_deg(*pair) for pair in pairs]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _JoinedTracks:
    """Points and who sees them, of all chunks together: O observations of P points."""

    image: NDArray[np.int64]  # (O,)
    point: NDArray[np.int64]  # (O,)
    pixels: Matrix  # (O, 2)
    points: Matrix  # (P, 3)

    def only(self, good: NDArray[np.bool_]) -> _JoinedTracks:
        """Those observations, of points that two of them see."""
        seen = np.bincount(self.point[good], minlength=len(self.points)) >= 2
        good = good & seen[self.point]
        _, point = np.unique(self.point[good], return_inverse=True)
        return _JoinedTracks(self.image[good], point, self.pixels[good], self.points[seen])


def join_points(
    chunks: Sequence[PlacedChunk],
    T_map_cam: Matrix,
    placed: NDArray[np.bool_],
    cameras: Sequence[Camera],
) -> tuple[ColmapModel, float]:
    """The model of the images that are placed at poses (N, 4, 4), and its mean error in pixels.

    Points of two chunks that one keypoint shows are one point; all are adjusted to the poses.
    Images are named by their numbers, as those of a ColmapRun.
    """
    tracks = _tracks(chunks, T_map_cam)
    kinds = _kinds(cameras)
    for _ in range(ROUNDS):
        tracks = _adjusted(tracks, T_map_cam, kinds)
        error_px = np.linalg.norm(_residuals(tracks, T_map_cam, kinds)[0], axis=-1)
        tracks = tracks.only(error_px <= MAX_ERROR_PX)
    error_px = np.linalg.norm(_residuals(tracks, T_map_cam, kinds)[0], axis=-1)
    model = _model(tracks, error_px, T_map_cam, placed, kinds)
    return model, float(model.errors_px.mean())


def _tracks(chunks: Sequence[PlacedChunk], T_map_cam: Matrix) -> _JoinedTracks:
    """Points moved with the keyframes that see them; those that share a keypoint are one."""
    offsets = np.cumsum([0, *(len(chunk.points) for chunk in chunks)])
    image = np.concatenate([chunk.image for chunk in chunks])
    pixels = np.concatenate([chunk.pixels for chunk in chunks])
    own = np.concatenate([c.point + o for c, o in zip(chunks, offsets, strict=False)])
    moved = np.concatenate([_moved(chunk, T_map_cam) for chunk in chunks])
    _, first, keypoint = np.unique(
        np.column_stack([image, pixels]), axis=0, return_index=True, return_inverse=True
    )
    sees = sparse.csr_matrix(
        (np.ones(len(own), np.int8), (keypoint, own)), (len(first), int(offsets[-1]))
    )
    _, track_of = connected_components(sparse.bmat([[None, sees], [sees.T, None]]), directed=False)
    point = track_of[len(first) :][own]
    _, point = np.unique(point, return_inverse=True)
    sums = [np.bincount(point, moved[:, axis]) for axis in range(3)]
    points = np.stack(sums, axis=-1) / np.bincount(point)[:, None]
    tracks = _JoinedTracks(image[first], point[first], pixels[first], points)
    return tracks.only(np.ones(len(first), bool))


def _moved(chunk: PlacedChunk, T_map_cam: Matrix) -> Matrix:
    """(O, 3) the point of each observation, in the same place for the image as in the chunk."""
    change = T_map_cam[chunk.images.start : chunk.images.stop] @ se3.inverse(chunk.T_map_cam)
    T = change[chunk.image - chunk.images.start]
    return np.einsum("kij,kj->ki", T[:, :3, :3], chunk.points[chunk.point]) + T[:, :3, 3]


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """Calibrations, each once."""

    cameras: tuple[Camera, ...]
    of_image: NDArray[np.int64]  # (N,)


def _kinds(cameras: Sequence[Camera]) -> _Kinds:
    known: dict[str, int] = {}
    of_image = [known.setdefault(repr(c.to_colmap()), len(known)) for c in cameras]
    first = [of_image.index(kind) for kind in range(len(known))]
    return _Kinds(tuple(cameras[i] for i in first), np.array(of_image, np.int64))


def _residuals(tracks: _JoinedTracks, T_map_cam: Matrix, kinds: _Kinds) -> tuple[Matrix, Matrix]:
    """Pixels (O, 2) by which projections are off keypoints, and their derivative (O, 2, 3)."""
    T_cam_map = se3.inverse(T_map_cam)[tracks.image]
    R = T_cam_map[:, :3, :3]
    points_cam = np.einsum("kij,kj->ki", R, tracks.points[tracks.point]) + T_cam_map[:, :3, 3]
    residual, J = np.zeros((len(R), 2)), np.zeros((len(R), 2, 3))
    for kind, camera in enumerate(kinds.cameras):
        own = kinds.of_image[tracks.image] == kind
        pixels, _, J_cam = camera.project_with_jacobian(torch.from_numpy(points_cam[own]))
        residual[own] = pixels.numpy() - tracks.pixels[own]
        J[own] = J_cam.numpy() @ R[own]
    return residual, J


def _adjusted(tracks: _JoinedTracks, T_map_cam: Matrix, kinds: _Kinds) -> _JoinedTracks:
    """Gauss-Newton on each point, robust (Cauchy); the poses stay as they are."""
    count = len(tracks.points)
    for _ in range(ITERATIONS):
        residual, J = _residuals(tracks, T_map_cam, kinds)
        weight = 1 / (1 + (residual**2).sum(-1) / LOSS_PX**2)
        H = np.einsum("k,kri,krj->kij", weight, J, J).reshape(-1, 9)
        g = np.einsum("k,kri,kr->ki", weight, J, residual)
        H = np.stack([np.bincount(tracks.point, h, count) for h in H.T], -1).reshape(-1, 3, 3)
        g = np.stack([np.bincount(tracks.point, each, count) for each in g.T], -1)
        H += DAMPING * np.trace(H, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        step = np.linalg.solve(H, -g[..., None])[..., 0]
        tracks = replace(tracks, points=tracks.points + step)
    return tracks


def _model(
    tracks: _JoinedTracks,
    error_px: NDArray[np.float64],
    T_map_cam: Matrix,
    placed: NDArray[np.bool_],
    kinds: _Kinds,
) -> ColmapModel:
    images, T_cam_map = [], se3.inverse(T_map_cam)
    order = np.argsort(tracks.image, kind="stable")
    bounds = np.searchsorted(tracks.image[order], np.arange(len(placed) + 1))
    for number in np.flatnonzero(placed).tolist():
        own = order[bounds[number] : bounds[number + 1]]
        images.append(
            ColmapImage(
                image_id=number,
                name=f"{number:08d}",
                camera_id=int(kinds.of_image[number]),
                T_cam_world=T_cam_map[number],
                pixels=tracks.pixels[own],
                point_ids=tracks.point[own],
            )
        )
    count = len(tracks.points)
    return ColmapModel(
        cameras=dict(enumerate(kinds.cameras)),
        images=tuple(images),
        unregistered=tuple(f"{i:08d}" for i in np.flatnonzero(~placed).tolist()),
        point_ids=np.arange(count),
        points_world=tracks.points,
        errors_px=np.bincount(tracks.point, error_px, count)
        / np.bincount(tracks.point, None, count),
    )
