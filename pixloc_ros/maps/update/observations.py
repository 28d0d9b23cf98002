"""What the frames of a session tell of the points of a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common.image_files import Image
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import ViewConfig
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.update.line_of_sight import LineOfSight, PosedPyramid, look_along
from pixloc_ros.maps.verified_frames import VerifiedFrame, apart
from pixloc_ros.maps.view import MapView, select_view

NEIGHBOURS = 2  # frames before, and as many after
VIEW = ViewConfig(keyframes=8, max_points=100_000)
MATCHES = 0.85  # cosine of the finest features of a point from which it is an inlier
SEEN = 0.5  # cosine along the line of sight from which something was found at a depth
MARGIN = 0.1  # by which a depth fits better than that of the point
MIN_FITTING_SHARE = 0.5  # of the points that a frame can tell of: otherwise it tells nothing
MIN_POINTS = 30  # in view of a frame that fits, or does not
CELLS = 12  # across an image: where the map has points, and where not
CORNERS = 400  # of an image, by which its texture is told


@dataclass(frozen=True, slots=True)
class FrameObservations:
    """One frame, and what it says of the points (N,) that it has in view."""

    frame: VerifiedFrame
    descriptor: NDArray[np.float32]  # (D,) of the whole image
    point_ids: NDArray[np.int32]
    points_map: Matrix  # (N, 3)
    features: tuple[NDArray[np.float32], ...]  # (N, C) seen now, coarse to fine
    confidences: tuple[NDArray[np.float32], ...]
    present: NDArray[np.bool_]  # the point's surface is where it was
    absent: NDArray[np.bool_]  # the frame looked through it
    novel: NDArray[np.bool_]  # present, and none of the map's observations looks like it
    hidden: NDArray[np.bool_]  # something nearer is before it
    pixels: NDArray[np.float32]  # (N, 2) where the points are
    corners_px: NDArray[np.float32]  # (M, 2) where the image has texture

    @property
    def misfits(self) -> bool:
        """Whether many points are in view, and the frame fits them badly."""
        return len(self.present) >= MIN_POINTS and not self.present.any()

    def open_cells(self, pixels: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether pixels (M, 2) are in cells in which the map has nothing that may be there.

        That is, no point that is present, and not more of which nothing is known than gone ones.
        """
        gone = self.absent | self.hidden
        weight = np.where(self.present, CELLS**3, np.where(gone, -1, 1))
        cell = self._cells(np.concatenate([self.pixels, pixels]))
        own, asked = cell[: len(self.pixels)], cell[len(self.pixels) :]
        return np.asarray(np.bincount(own, weight, cell.max(initial=0) + 1)[asked] <= 0)

    def _cells(self, pixels: NDArray[np.floating]) -> NDArray[np.int64]:
        size_px = self.frame.camera.width / CELLS
        column, line = np.maximum(pixels // size_px, 0).astype(np.int64).T
        return np.asarray(line * (CELLS + 1) + column)


def observe(
    map_: Map,
    frames: Sequence[VerifiedFrame],
    extractor: FeatureExtractor,
    spacing_m: float,
    progress: Progress = silent,
) -> Iterator[FrameObservations]:
    """Yield what each frame tells, of those that are some way apart; never with many in memory."""
    frames = spaced(frames, spacing_m)
    pyramids: dict[int, PosedPyramid] = {}
    for index in progress(range(len(frames)), "Comparing with the map", len(frames)):
        window = range(max(0, index - NEIGHBOURS), min(len(frames), index + NEIGHBOURS + 1))
        pyramids = {
            i: pyramids[i] if i in pyramids else _posed(frames[i], extractor) for i in window
        }
        others = [pyramids[i] for i in window if i != index]
        yield _observe(map_, frames[index], pyramids[index], others)


def spaced(frames: Sequence[VerifiedFrame], spacing_m: float) -> list[VerifiedFrame]:
    """The first frame, and each that is so far from the last one taken, or turned."""
    taken: list[VerifiedFrame] = []
    for frame in frames:
        if not taken or apart(taken[-1].T_map_cam, frame.T_map_cam, spacing_m):
            taken.append(frame)
    return taken


def _posed(frame: VerifiedFrame, extractor: FeatureExtractor) -> PosedPyramid:
    image_rgb = frame.read_image()
    corners_px = _corners(image_rgb)
    return PosedPyramid(extractor.extract(image_rgb), frame.camera, frame.T_map_cam, corners_px)


def _corners(image_rgb: Image) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, CORNERS, 0.01, 8)
    return np.zeros((0, 2), np.float32) if found is None else found[:, 0].astype(np.float32)


def _observe(
    map_: Map, frame: VerifiedFrame, posed: PosedPyramid, others: Sequence[PosedPyramid]
) -> FrameObservations:
    views = _views(map_, frame)
    ids, first = np.unique(np.concatenate([v.point_ids for v in views]), return_index=True)
    points_map = torch.cat([v.points for v in views]).double().numpy()[first] + views[0].origin
    pixels, in_view = project(points_map, frame)
    sampled = posed.pyramid.sample(pixels.to(posed.pyramid.levels[0].rows))
    finest = sampled[-1][0].cpu()
    similarity = torch.stack([_similarity(view, ids, finest) for view in views]).amax(0)
    matches = similarity.numpy() >= MATCHES
    unsure = np.flatnonzero(in_view & ~matches)
    sight = look_along(points_map[unsure], posed, others)
    present, absent, hidden = _verdicts(matches & in_view, unsure, sight)
    return FrameObservations(
        frame=frame,
        descriptor=retrieval.describe(posed.pyramid),
        point_ids=ids[in_view],
        points_map=points_map[in_view],
        features=tuple(feature.cpu().numpy()[in_view] for feature, _, _ in sampled),
        confidences=tuple((c * valid).cpu().numpy()[in_view] for _, c, valid in sampled),
        present=present[in_view],
        absent=absent[in_view],
        novel=(present & ~matches)[in_view],
        hidden=hidden[in_view],
        pixels=pixels.numpy()[in_view].astype(np.float32),
        corners_px=posed.corners_px,
    )


def _views(map_: Map, frame: VerifiedFrame) -> list[MapView]:
    """From the frame: the view of the build, then those of other conditions with keyframes near."""
    T_map_cam = frame.T_map_cam
    near, _ = map_.keyframes_within(T_map_cam[:3, 3], VIEW.max_distance_m)
    later = (
        [] if map_.keyframe_condition is None else np.unique(map_.keyframe_condition[near]).tolist()
    )
    conditions = dict.fromkeys([0, *later])
    return [select_view(map_, T_map_cam, frame.camera, VIEW, condition=one) for one in conditions]


def project(points_map: Matrix, frame: VerifiedFrame) -> tuple[Tensor, NDArray[np.bool_]]:
    """Pixels (N, 2) of points (N, 3) in a frame, and which are in view."""
    points_cam = se3.transform(se3.inverse(frame.T_map_cam), points_map)
    pixels, in_view = frame.camera.project(torch.from_numpy(points_cam))
    return pixels, in_view.numpy()


def _similarity(view: MapView, ids: NDArray[np.int32], finest: Tensor) -> Tensor:
    """Cosine (N,) of the finest features (N, C) of points with a view's; -1 where it lacks them."""
    cosine = torch.full((len(ids),), -1.0)
    rows = torch.from_numpy(np.searchsorted(ids, view.point_ids))
    cosine[rows] = (finest[rows] * view.features[-1]).sum(-1)
    return cosine


def _verdicts(
    matches: NDArray[np.bool_], unsure: NDArray[np.intp], sight: LineOfSight
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which points (N,) are present, absent and hidden; none is where the frame fits badly.

    matches: (N,) points that look as on the map. unsure: indices of those that do not, with their
    lines of sight.
    """
    elsewhere = np.maximum(sight.nearer, sight.farther)
    found = sight.informative & (sight.at > SEEN) & (sight.at >= elsewhere)
    through = (sight.farther > sight.at + MARGIN) & (sight.farther > sight.nearer)
    before = (sight.nearer > sight.at + MARGIN) & (sight.nearer >= sight.farther)
    present, absent, hidden = matches.copy(), np.zeros_like(matches), np.zeros_like(matches)
    present[unsure] = found
    absent[unsure] = ~found & sight.informative & through
    hidden[unsure] = ~found & sight.informative & before
    if present.sum() < MIN_FITTING_SHARE * (matches.sum() + sight.informative.sum()):
        return np.zeros_like(present), np.zeros_like(absent), np.zeros_like(hidden)
    return present, absent, hidden
