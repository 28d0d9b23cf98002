"""PixLoc as published, from a COLMAP model and its images: the yardstick that ours is held to.

For each query: references are chosen, the points that they see projected into them, and features
read there; then Levenberg-Marquardt, level by level and image scale by image scale. References are
looked at anew for every query, which is where the time goes: `Localizer` has them in its map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.alignment.levenberg_marquardt import minimize
from pixloc_ros.alignment.policy import REFERENCE, Policy
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.config.published import PublishedConfig
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.hloc_logs import QueryLog
from pixloc_ros.maps.reference_selection import (
    ReferenceModel,
    largest_covisible_group,
    logged_points,
    logged_references,
    mean_pose,
    observed_points,
)

Image = NDArray[np.uint8]
PointsSeen = Mapping[str, NDArray[np.intp]]  # rows of the model's points by reference


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """The pose of a query, or where the search for it ended."""

    T_cam_world: Matrix  # (4, 4); where it failed, where the pass that failed began
    T_cam_world_initial: Matrix
    success: bool
    message: str
    references: tuple[str, ...]
    points: int  # rows aligned at the last scale


@dataclass(frozen=True, slots=True)
class _Rows:
    """Reference features of points at one image scale, coarse to fine."""

    points: Tensor  # (N, 3) local
    features: tuple[Tensor, ...]  # (N, C) of unit norm
    confidences: tuple[Tensor, ...]  # (N,)


class PublishedLocalizer:
    """Localizes queries by references, and refines poses, with the rules of the paper's code.

    read_reference: gives the image of a reference by name.
    """

    def __init__(
        self,
        config: PublishedConfig,
        known: ReferenceModel,
        read_reference: Callable[[str], Image],
    ):
        self.config, self.known, self.read_reference = config, known, read_reference
        precision = config.precision
        self.features = FeatureExtractor(config.weights, config.device, 1024, precision)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.policy = _policy(config)

    def localize(
        self,
        image: Image,
        camera: Camera,
        ranked: Sequence[str],
        similarity: Sequence[float] | None = None,
    ) -> PublishedResult:
        """Localize a query by references, the best first (RetrievalRefiner of the paper's code).

        similarity: of the ranked references to the query, for their mean pose.
        """
        config = self.config
        chosen = list(ranked[: config.references])
        if config.covisible_only or config.mean_initial_pose:
            chosen = largest_covisible_group(self.known, chosen)
        T_initial = self.known.images[chosen[0]].T_cam_world
        if config.mean_initial_pose and similarity is not None:
            weight_of = dict(zip(ranked, similarity, strict=True))
            T_initial = mean_pose(self.known, chosen, np.array([weight_of[n] for n in chosen]))
        seen = observed_points(self.known, chosen, config.min_track_length)
        return self.align(image, camera, T_initial, seen)

    def refine(
        self, image: Image, camera: Camera, log: QueryLog, T_cam_world: Matrix | None = None
    ) -> PublishedResult:
        """Refine a pose by the points that hloc matched (PoseRefiner of the paper's code).

        T_cam_world: (4, 4); by default that of the log.
        """
        T_initial = log.T_cam_world if T_cam_world is None else T_cam_world
        if T_initial is None or sum(log.inliers) < self.config.min_inliers:
            where = np.eye(4) if T_initial is None else T_initial
            return PublishedResult(where, where, False, "too few inliers to refine", (), 0)
        config = self.config
        chosen = logged_references(self.known, log, config.references, config.min_inliers)
        if config.points == "all":
            seen = observed_points(self.known, chosen, config.min_track_length)
        else:
            only = config.points == "inliers"
            seen = logged_points(self.known, log, chosen, only, config.min_track_length)
        return self.align(image, camera, T_initial, seen)

    @torch.inference_mode()
    def align(
        self, image: Image, camera: Camera, T_cam_world: Matrix, seen: PointsSeen
    ) -> PublishedResult:
        """Align a query from a pose (4, 4) with the points seen by some references."""
        references, count = tuple(seen), 0
        T = T_cam_world
        distinct = {int(row) for rows in seen.values() for row in rows}
        if len(distinct) < self.config.min_points:
            message = f"only {len(distinct)} points"
            return PublishedResult(T, T_cam_world, False, message, references, 0)
        origin = np.round(se3.inverse(T)[:3, 3])
        images = {name: self.read_reference(name) for name in seen}
        for scale in self.config.image_pyramid:
            rows = self._rows(images, seen, scale, origin)
            count = len(rows.points)
            found = self._descend(self._pyramid(image, scale), camera, rows, T, origin)
            if found is None:
                message = f"points lost at 1/{scale} of the size"
                return PublishedResult(T, T_cam_world, False, message, references, count)
            T = found
        return PublishedResult(T, T_cam_world, True, "aligned", references, count)

    def _descend(
        self,
        pyramid: FeaturePyramid,
        camera: Camera,
        rows: _Rows,
        T_cam_world: Matrix,
        origin: Matrix,
    ) -> Matrix | None:
        """T_cam_world (4, 4) after all levels of one image scale; None where one failed."""
        T_cam_local = T_cam_world @ se3.make(np.eye(3), origin)
        device = self.features.device
        pose = Pose.from_matrix(torch.from_numpy(T_cam_local[None])).to(device, self.dtype)
        for index, level_number in enumerate(self.config.levels):
            level = pyramid.levels[level_number]
            system = LevelSystem(
                level,
                pyramid.camera(camera.to(device, self.dtype), level),
                rows.points,
                rows.features[index],
                rows.confidences[index],
                self.policy.robust,
                self.policy.sampling,
            )
            damping = self.features.damping[level_number].to(self.dtype)
            end = minimize(system, pose, damping, self.config.iterations, self.policy)
            if bool(end.failed[0]):
                return None
            pose = end.T_cam_local
        T = pose[0].to("cpu", torch.float64).matrix().numpy()
        return T @ se3.make(np.eye(3), -origin)

    def _rows(
        self, images: Mapping[str, Image], seen: PointsSeen, scale: int, origin: Matrix
    ) -> _Rows:
        """Features of all observations, or their mean per point, at one image scale."""
        observed = [self._observe(images[name], name, seen[name], scale) for name in seen]
        point = np.concatenate([rows for rows, _ in observed])
        levels = range(len(self.config.levels))
        raw = [torch.cat([values[i] for _, values in observed]) for i in levels]
        if self.config.average_observations:
            point, raw = _averaged(point, raw)
        points = self.known.model.points_world[point] - origin
        return _Rows(
            torch.from_numpy(points).to(self.features.device, self.dtype),
            tuple(torch.nn.functional.normalize(values[:, :-1], dim=-1) for values in raw),
            tuple(values[:, -1] for values in raw),
        )

    def _observe(
        self, image: Image, name: str, rows: NDArray[np.intp], scale: int
    ) -> tuple[NDArray[np.intp], list[Tensor]]:
        """Points that an image shows on every level, and their raw features with confidence."""
        pyramid, reference = self._pyramid(image, scale), self.known.images[name]
        camera = self.known.model.cameras[reference.camera_id]
        points = se3.transform(reference.T_cam_world, self.known.model.points_world[rows])
        values, shown = [], torch.ones(len(rows), dtype=torch.bool)
        for number in self.config.levels:
            level = pyramid.levels[number]
            pixels, valid = pyramid.camera(camera, level).project(torch.from_numpy(points))
            shown &= valid & self.policy.sampling.inside(level, pixels)
            at = pixels.to(level.rows)
            values.append(self.policy.sampling.read(_raw(level), at)[..., 0, :])
        index = shown.to(self.features.device)
        return rows[shown.numpy()], [value[index] for value in values]

    def _pyramid(self, image: Image, scale: int) -> FeaturePyramid:
        """Features of the image reduced to a part of the largest size.

        Its scale is the one asked for on both axes, although the size is rounded.
        """
        extractor, side_px = copy.copy(self.features), self.config.max_side_px // scale
        extractor.max_side_px = side_px
        factor = min(1.0, side_px / max(image.shape[:2]))
        return replace(extractor.extract(image), scale=(factor, factor))


def _raw(level: FeatureLevel) -> FeatureLevel:
    """The level with features as the network gave them, before their norm was made one."""
    if level.norms is None:
        return level
    rows = torch.cat([level.rows[:, :-1] * level.norms[:, None], level.rows[:, -1:]], -1)
    return replace(level, rows=rows)


def _averaged(
    point: NDArray[np.intp], raw: Sequence[Tensor]
) -> tuple[NDArray[np.intp], list[Tensor]]:
    """Per point, the features' mean weighted by confidence, and the mean confidence."""
    distinct, of = np.unique(point, return_inverse=True)
    index = torch.from_numpy(of).to(raw[0].device)
    count = torch.bincount(index, minlength=len(distinct))
    means = []
    for values in raw:
        features, confidence = values[:, :-1], values[:, -1:]
        weighted = values.new_zeros(len(distinct), features.shape[1])
        total = values.new_zeros(len(distinct), 1)
        weighted.index_add_(0, index, features * confidence)
        total.index_add_(0, index, confidence)
        means.append(torch.cat([weighted / total, total / count[:, None]], -1))
    return distinct, means


def _policy(config: PublishedConfig) -> Policy:
    sampling = replace(REFERENCE.sampling, border_px=config.border_px)
    return replace(REFERENCE, sampling=sampling)
