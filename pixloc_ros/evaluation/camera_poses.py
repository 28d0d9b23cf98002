"""Camera poses from records whose vehicle is the camera: those of single images."""

from __future__ import annotations

from collections.abc import Iterable

from pixloc_ros.evaluation.frames import FrameResult, PoseRecord
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix


def accepted_poses(results: Iterable[FrameResult], T_map_world: Matrix) -> dict[str, Matrix]:
    """Return T_cam_world (4, 4) by name of the images that were localized."""
    return {r.name: _cam_from_world(r.pose, T_map_world) for r in results if r.pose is not None}


def answered_poses(results: Iterable[FrameResult], T_map_world: Matrix) -> dict[str, Matrix]:
    """Return T_cam_world (4, 4) by name: of rejected images where alignment ended, or the prior."""
    poses = {}
    for result in results:
        prior = result.prior.pose if result.prior is not None else None
        best = result.pose or result.candidate or prior
        if best is not None:
            poses[result.name] = _cam_from_world(best, T_map_world)
    return poses


def _cam_from_world(T_map_cam: PoseRecord, T_map_world: Matrix) -> Matrix:
    return se3.inverse(T_map_cam.matrix()) @ T_map_world
