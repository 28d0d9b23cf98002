"""The published method as a localizer of queries: its results as estimates.

The map is the references' world, and the vehicle is the camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.alignment.published import PublishedLocalizer, PublishedResult
from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import confined
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.camera_poses import answered_poses
from pixloc_ros.evaluation.frames import FrameResult, frame_result
from pixloc_ros.evaluation.partial_run import partial_path, resumable_run
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.maps.files.hloc_logs import QueryLog
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status


@dataclass(frozen=True, slots=True)
class RankedReferences:
    """References of a query, best first; similarity: of their descriptors, if known."""

    names: tuple[str, ...]
    similarity: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ByReferences:
    """Localizes queries by their ranked references."""

    localizer: PublishedLocalizer
    ranked: Mapping[str, RankedReferences]

    def localize(
        self, frame: Frame, priors: Sequence[PosePrior], other_cameras: Sequence[Frame]
    ) -> Estimate:
        """Localize a query; one without references of the model has no result."""
        ranked = self.ranked.get(frame.name)
        if ranked is None or not ranked.names:
            return _failed(frame, "no reference of the model is listed with this query")
        found = self.localizer.localize(
            frame.image_rgb, frame.camera, ranked.names, ranked.similarity
        )
        return _estimate(frame, found)


@dataclass(frozen=True, slots=True)
class Refining:
    """Refines the poses of hloc's log, or those given instead."""

    localizer: PublishedLocalizer
    logs: Mapping[str, QueryLog]
    given: Mapping[str, Matrix] = field(default_factory=dict)  # T_cam_world (4, 4) by query

    def localize(
        self, frame: Frame, priors: Sequence[PosePrior], other_cameras: Sequence[Frame]
    ) -> Estimate:
        """Refine the pose of a query."""
        log, T_cam_world = self.logs.get(frame.name), self.given.get(frame.name)
        if log is None or (log.T_cam_world is None and T_cam_world is None):
            return _failed(frame, "the log has no pose of this query")
        found = self.localizer.refine(frame.image_rgb, frame.camera, log, T_cam_world)
        return _estimate(frame, found)


def localize_files(
    localizer: ByReferences | Refining,
    images: Path,
    cameras: Mapping[str, Camera],
    output: Path,
    settings: Mapping[str, Any],
    progress: Progress = silent,
) -> list[FrameResult]:
    """Localize images and write their poses, T_cam_world, to a file; failed ones have one too.

    Until all are done, the records are in `partial_path`; an interrupted run is continued.

    cameras: by the image's name in the folder. settings: everything that the results depend on.
    Raises DataError for an image that cannot be read, and if an interrupted run had other settings.
    """
    with resumable_run(partial_path(output), settings) as run:
        left = [(i, name) for i, name in enumerate(cameras) if name not in run.done]
        for i, name in progress(left, "localizing", len(left)):
            frame = Frame(read_image(images, name), cameras[name], i, np.eye(4), name)
            run.add(frame_result(localizer.localize(frame, (), ())))
        results = [run.done[name] for name in cameras]
        write_poses(output, answered_poses(results, np.eye(4)))
    return results


def read_image(folder: Path, name: str) -> NDArray[np.uint8]:
    """Return an image of a folder (H, W, 3) RGB. Raises DataError."""
    path = confined(folder, name, DataError)
    image = image_files.read(path)
    if image is None:
        raise DataError(f"{path} is missing or no image")
    return image


def _estimate(frame: Frame, found: PublishedResult) -> Estimate:
    """Convert a result; a failed one has the pose where the search ended as its candidate."""
    T_map_cam = se3.inverse(found.T_cam_world)
    T_initial = se3.inverse(found.T_cam_world_initial)
    return Estimate(
        Status.OK if found.success else Status.FAILED,
        Reason.OK if found.success else Reason.TOO_FEW_POINTS,
        found.message,
        frame.stamp_ns,
        frame.name,
        T_map_base=T_map_cam if found.success else None,
        candidate_T_map_base=T_map_cam,
        prior=PosePrior(T_initial, np.zeros((6, 6)), "reference", frame.stamp_ns),
        keyframes=found.references,
    )


def _failed(frame: Frame, why: str) -> Estimate:
    return Estimate(Status.FAILED, Reason.NO_PRIOR, why, frame.stamp_ns, frame.name)
