"""Make frames of two files that hold only poses: one is the estimate, one the ground truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pixloc_ros.evaluation.frames import FrameResult, PoseRecord, with_truth
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import Trajectory, associate
from pixloc_ros.types import Status

TOLERANCE_S = 0.01  # stamps farther apart are different instants
MISSING = "missing"  # reason of a frame that the estimate lacks


def compare_trajectories(
    estimate: Trajectory, truth: Trajectory, tolerance_s: float = TOLERANCE_S
) -> list[FrameResult]:
    """Make a frame of every true pose; those without an estimate within tolerance_s failed.

    The error is measured against the truth interpolated at the estimate's stamp. Estimated poses
    without a true one become frames without truth.
    """
    i_truth, i_estimate = associate(truth.stamps_ns, estimate.stamps_ns, tolerance_s)
    partner = dict(zip(i_estimate.tolist(), truth.T_map_base[i_truth], strict=True))
    frames = []
    for i, stamp_ns in enumerate(estimate.stamps_ns.tolist()):
        found = _found(str(stamp_ns), stamp_ns, estimate.T_map_base[i])
        T_true = truth.at(stamp_ns) if i in partner else None
        frames.append(with_truth(found, partner.get(i) if T_true is None else T_true))
    for i in np.setdiff1d(np.arange(len(truth)), i_truth):
        stamp_ns = int(truth.stamps_ns[i])
        frames.append(_missing(str(stamp_ns), stamp_ns, truth.T_map_base[i]))
    return sorted(frames, key=lambda frame: frame.stamp_ns)


def compare_poses(estimate: Mapping[str, Matrix], truth: Mapping[str, Matrix]) -> list[FrameResult]:
    """Make a frame of every image of the truth; both map names to T_cam_map (4, 4).

    Cameras are rotated to base_link axes in place, so "along" is the viewing direction. These files
    have no time: the stamp is the line number.
    """
    T_cam_base = se3.inverse(se3.base_from_optical())
    frames = []
    for i, (name, T_cam_map) in enumerate(truth.items()):
        T_true = se3.inverse(T_cam_map) @ T_cam_base
        if name in estimate:
            found = _found(name, i, se3.inverse(estimate[name]) @ T_cam_base)
            frames.append(with_truth(found, T_true))
        else:
            frames.append(_missing(name, i, T_true))
    return frames


def _found(name: str, stamp_ns: int, T_map_base: Matrix) -> FrameResult:
    pose = PoseRecord.of(T_map_base)
    return FrameResult(name=name, stamp_ns=stamp_ns, status=Status.OK, reason="ok", pose=pose)


def _missing(name: str, stamp_ns: int, T_true: Matrix) -> FrameResult:
    frame = FrameResult(name=name, stamp_ns=stamp_ns, status=Status.FAILED, reason=MISSING)
    return with_truth(frame, T_true)
