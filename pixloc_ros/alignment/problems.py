"""What is aligned with what: views of the map, and the initial poses to align against each.

A sure prior gets one view per camera, chosen at the prior. Points chosen 10 m behind the vehicle
are mostly out of its view, so a vague prior gets several, at keyframes along the stretch of map
that it allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pixloc_ros.alignment.initial_poses import draw_initial_poses
from pixloc_ros.alignment.result import to_map
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.config import Config
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import cam_covariance_from_base
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.retrieval import describe, most_alike_condition
from pixloc_ros.maps.view import MapView, select_view
from pixloc_ros.types import Frame, Matrix, PosePrior


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """A frame, and the features of its image."""

    frame: Frame
    pyramid: FeaturePyramid


@dataclass(frozen=True, slots=True)
class AlignmentProblem:
    """Cameras with their views of the map, and the initial poses to align against them.

    The first camera is the lead; initial_poses (K,) are its T_cam_local and come from the prior.
    """

    images: tuple[ImageFeatures, ...]
    observations: tuple[CameraObservation, ...]
    initial_poses: Pose
    prior: PosePrior
    T_map_base_view: Matrix  # (4, 4) where the views were chosen
    screened: bool = False  # the initial poses are results of the coarse screening
    hypotheses_dropped: int = 0  # there, for want of memory
    hypotheses_needed: int = 0  # to cover the prior, in its first problem
    provisional: bool = False  # its views are: its pose must be aligned again to be believed

    @property
    def lead(self) -> Frame:
        """The frame of the camera whose pose is solved for."""
        return self.images[0].frame

    @property
    def keyframes(self) -> tuple[str, ...]:
        """Whose points were considered, each once, those of the lead first."""
        return tuple(dict.fromkeys(k for o in self.observations for k in o.view.keyframes))

    @property
    def T_map_cam_prior(self) -> Matrix:
        """Where the prior has the lead (4, 4)."""
        return self.prior.T_map_base @ self.lead.T_base_cam

    def T_map_cam(self, T_cam_local: Pose) -> Matrix:
        """The first of some poses of the lead (K,), in the map (4, 4)."""
        return to_map(T_cam_local[0], self.observations[0].view.origin)


class ViewSelector:
    """Chooses views of the map and initial poses, for one frame: the views of a pose are kept.

    images: of its cameras, where they have been extracted: the map's observations that they look
    most like are preferred.
    """

    def __init__(self, map: Map, config: Config, images: Sequence[ImageFeatures] = ()):
        self.map = map
        self.config = config
        several = map.keyframe_condition is not None
        self._descriptors = {id(i.frame): describe(i.pyramid) for i in images if several}
        self._views: dict[tuple[int, bytes, int, int, bool], MapView] = {}

    def with_images(self, images: Sequence[ImageFeatures], config: Config) -> ViewSelector:
        """Make one that knows the images, with other options of the search: it keeps the views.

        config: its `view` must be the same.
        """
        selector = ViewSelector(self.map, config, images)
        selector._views = self._views
        return selector

    def view(
        self,
        frame: Frame,
        T_map_base: Matrix,
        point_ids: NDArray[np.int32] | None = None,
        provisional: bool = False,
    ) -> MapView:
        """The view of the map that a frame has where the vehicle is at a pose (4, 4).

        point_ids: (N,) of the only points to choose from, as a prior has them.
        provisional: with points that the keyframes view very differently, too.
        """
        T_map_cam, config = T_map_base @ frame.T_base_cam, self.config
        condition = self._condition(frame, T_map_cam)
        key = (id(frame), T_map_base.tobytes(), id(point_ids), condition, provisional)
        if key not in self._views:
            self._views[key] = select_view(
                self.map,
                T_map_cam,
                frame.camera,
                config.view.provisional() if provisional else config.view,
                config.device,
                point_ids,
                condition,
            )
        return self._views[key]

    def _condition(self, frame: Frame, T_map_cam: Matrix) -> int:
        """The condition whose observations a frame is to be aligned with."""
        descriptor = self._descriptors.get(id(frame))
        if descriptor is None:
            return 0
        radius_m = self.config.view.condition_radius_m
        return most_alike_condition(self.map, descriptor, T_map_cam[:3, 3], radius_m)

    def problems(self, images: Sequence[ImageFeatures], prior: PosePrior) -> list[AlignmentProblem]:
        """Choose views whose initial poses cover a prior; its own pose is the first in the first.

        None where the lead sees too little of the map at the prior.
        """
        initial = (prior.T_map_base @ images[0].frame.T_base_cam)[None]
        at_prior = self.problem(images, prior.T_map_base, prior, initial) or self.problem(
            images, prior.T_map_base, prior, initial, provisional=True
        )
        if at_prior is None:
            return []
        initial_poses, needed = self._initial_poses(at_prior)
        at_prior = replace(at_prior, initial_poses=initial_poses, hypotheses_needed=needed)
        extra_views = self._extra_view_poses(at_prior.T_map_cam_prior, prior)
        return self._divided(at_prior, extra_views) if extra_views else [at_prior]

    def problem(
        self,
        images: Sequence[ImageFeatures],
        T_map_base: Matrix,
        prior: PosePrior,
        T_map_initial: Matrix | None = None,
        provisional: bool = False,
    ) -> AlignmentProblem | None:
        """Choose views from a pose of the vehicle (4, 4); None if no camera sees enough there.

        T_map_initial: initial poses (K, 4, 4) of the lead, by default that pose. Cameras that see
        too little of the map are left out; with initial poses, the lead must not be one of them.
        provisional: choose provisional views.
        """
        views = [self.view(i.frame, T_map_base, prior.point_ids, provisional) for i in images]
        pairs = list(zip(images, views, strict=True))
        pairs = [(image, view) for image, view in pairs if len(view) >= self.config.view.min_points]
        if not pairs or (T_map_initial is not None and pairs[0][0] is not images[0]):
            return None
        lead, view = pairs[0][0].frame, pairs[0][1]
        if T_map_initial is None:
            T_map_initial = (T_map_base @ lead.T_base_cam)[None]
        return AlignmentProblem(
            tuple(image for image, _ in pairs),
            tuple(_observation(image, view, lead) for image, view in pairs),
            local_poses(T_map_initial, view),
            prior,
            T_map_base,
            provisional=provisional,
        )

    def alternative_poses(
        self, problem: AlignmentProblem, T_map_base: Matrix
    ) -> list[AlignmentProblem]:
        """Choose views from poses ahead of and behind one that was found, and begin there.

        They go as far as the problem's prior allows, and a step more; none for a prior that allows
        no step. Streets repeat along themselves: what fits one house may fit the next one as well,
        which the initial poses, drawn closer around the prior, need not have tried.
        """
        options, T_moved = self.config.hypotheses, []
        ahead_m, allowed_m = self._along_prior(problem.prior, T_map_base)
        for step_m in options.alternative_step_m * _there_and_back(options.max_alternatives):
            if abs(ahead_m + step_m) <= allowed_m:
                T_moved.append(_ahead(T_map_base, step_m))
        found = [self.problem(problem.images, T, problem.prior) for T in T_moved]
        return [each for each in found if each is not None and each.lead is problem.lead]

    def poses_beyond_prior(
        self, problem: AlignmentProblem, T_map_base: Matrix, directions: Sequence[int]
    ) -> list[AlignmentProblem]:
        """Begin ahead of a pose (1) and behind it (-1) where the prior does not allow it.

        Two neighbouring ones have a view in common, chosen between them: most end soon.
        """
        options, problems = self.config.hypotheses, []
        ahead_m, allowed_m = self._along_prior(problem.prior, T_map_base)
        count = 2 * int(options.beyond_prior_m / options.beyond_prior_step_m)
        for steps in _there_and_back(count):
            step_m = options.beyond_prior_step_m * steps
            if np.sign(steps) not in directions or abs(ahead_m + step_m) <= allowed_m:
                continue
            between = np.sign(steps) * (2.0 * np.ceil(abs(steps) / 2.0) - 0.5)
            T_map_view = _ahead(T_map_base, options.beyond_prior_step_m * between)
            T_map_cam = _ahead(T_map_base, step_m) @ problem.lead.T_base_cam
            problems.append(
                self.problem(problem.images, T_map_view, problem.prior, T_map_cam[None])
            )
        return [each for each in problems if each is not None and each.lead is problem.lead]

    def _along_prior(self, prior: PosePrior, T_map_base: Matrix) -> tuple[float, float]:
        """How far ahead of a prior a pose is, and how far alternatives to it may be, in metres."""
        step_m = self.config.hypotheses.alternative_step_m
        limit = self.config.acceptance.max_sigma_from_prior
        forward = T_map_base[:3, 0]
        reach_m = limit * float(np.sqrt(forward @ prior.covariance[:3, :3] @ forward))
        ahead_m = float(forward @ (T_map_base[:3, 3] - prior.T_map_base[:3, 3]))
        return ahead_m, reach_m + step_m if reach_m >= step_m else 0.0

    def _initial_poses(self, at_prior: AlignmentProblem) -> tuple[Pose, int]:
        """T_cam_local (K,) at the lead's view, and how many cover the prior."""
        prior, observation, lead = at_prior.prior, at_prior.observations[0], at_prior.lead
        points = observation.view.points
        covariance = cam_covariance_from_base(prior.covariance, prior.T_map_base, lead.T_base_cam)
        camera = observation.camera.to(points.device).scale(observation.pyramid.scale)
        pose = at_prior.initial_poses[0]
        return draw_initial_poses(pose, covariance, points, camera, self.config.hypotheses)

    def _divided(
        self, at_prior: AlignmentProblem, T_map_views: Sequence[Matrix]
    ) -> list[AlignmentProblem]:
        """The initial poses of a problem, each at the nearest view: its own or one of others."""
        lead_view = at_prior.observations[0].view
        T_map_initial = se3.inverse(at_prior.initial_poses.matrix().double().cpu().numpy())
        T_map_initial[:, :3, 3] += lead_view.origin
        places = np.stack([T[:3, 3] for T in (at_prior.T_map_cam_prior, *T_map_views)])
        nearest = np.linalg.norm(T_map_initial[:, None, :3, 3] - places, axis=-1).argmin(1)
        nearest[0] = 0
        own = local_poses(T_map_initial[nearest == 0], lead_view)
        problems: list[AlignmentProblem | None] = [replace(at_prior, initial_poses=own)]
        for i in np.unique(nearest[nearest > 0]):
            T_map_base = T_map_views[i - 1] @ se3.inverse(at_prior.lead.T_base_cam)
            initial = T_map_initial[nearest == i]
            problems.append(self.problem(at_prior.images, T_map_base, at_prior.prior, initial))
        return [problem for problem in problems if problem is not None]

    def _extra_view_poses(self, T_map_cam: Matrix, prior: PosePrior) -> list[Matrix]:
        """Camera poses at keyframes inside the prior's ellipsoid, nearest first, well apart.

        They keep the prior's rotation: it, not the keyframe's, decides what is in the image.
        """
        spacing_m, limit = self.config.view.extra_view_spacing_m, self.config.view.max_extra_views
        covariance = prior.covariance[:3, :3]
        sigmas = self.config.hypotheses.coverage_sigma
        if sigmas * np.sqrt(np.linalg.eigvalsh(covariance)[-1]) < spacing_m:
            return []
        # A keyframe may lie outside of the ellipsoid by as much as a view serves around it.
        widened = covariance + np.eye(3) * (spacing_m / sigmas) ** 2
        reach_m = sigmas * np.sqrt(np.linalg.eigvalsh(widened)[-1])
        near, _ = self.map.keyframes_within(T_map_cam[:3, 3], reach_m)
        places = self.map.keyframe_T_map_cam[near, :3, 3]
        offsets = places - T_map_cam[:3, 3]
        distance = np.sqrt((offsets * np.linalg.solve(widened, offsets.T).T).sum(1))
        chosen: list[Matrix] = []
        for i in np.argsort(distance):
            if distance[i] > sigmas or len(chosen) == limit:
                break
            pose = se3.make(T_map_cam[:3, :3], places[i])
            if all(se3.distance_m(pose, other) > spacing_m for other in chosen):
                chosen.append(pose)
        return chosen


def _there_and_back(count: int) -> NDArray[np.float64]:
    """1, -1, 2, -2, 3 and so on."""
    index = np.arange(count)
    return (index // 2 + 1.0) * (-1.0) ** index


def _ahead(T_map_base: Matrix, distance_m: float) -> Matrix:
    return T_map_base @ se3.make(np.eye(3), [distance_m, 0.0, 0.0])


def local_poses(T_map_cam: Matrix, view: MapView) -> Pose:
    """T_cam_local (K,) of camera poses (K, 4, 4), in the precision and on the device of a view."""
    T_local_cam = T_map_cam.copy()
    T_local_cam[:, :3, 3] -= view.origin
    return Pose.from_matrix(torch.from_numpy(se3.inverse(T_local_cam)).to(view.points))


def _observation(image: ImageFeatures, view: MapView, lead: Frame) -> CameraObservation:
    return CameraObservation(
        image.pyramid,
        image.frame.camera.to(dtype=torch.float32),  # on the CPU: reading it must not wait
        view,
        se3.inverse(image.frame.T_base_cam) @ lead.T_base_cam,
    )
