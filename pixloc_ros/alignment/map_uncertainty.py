"""How far the uncertain depths of the map's points may have moved a pose.

A point of the map is right along the ray of its reference keyframe, from which its features are,
but its depth is not exact. Seen from beside that ray it is in the wrong place of the image, and
neighbouring points often err alike. The residuals cannot tell this from the pose: a pose that is
off by as much explains them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import FINE, Aligner, Stage
from pixloc_ros.alignment.problems import AlignmentProblem, local_poses
from pixloc_ros.alignment.result import image_cells, sandwich
from pixloc_ros.alignment.rig import CameraObservation, adjoint
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.types import Alignment

POINTS = 500  # of a view: their errors are alike, so more would hardly change the covariance


def with_map_covariance(
    alignment: Alignment, problem: AlignmentProblem, aligner: Aligner
) -> Alignment:
    """Return the alignment with the covariance that the depths of the problem's points cause.

    Unchanged where the map knows of no depth how uncertain it is, or the covariance of the pose is
    not finite.
    """
    observations = problem.observations
    known = any(observation.view.depth_errors is not None for observation in observations)
    if not known or not np.isfinite(alignment.covariance_cam).all():
        return alignment
    T_lead_local = local_poses(alignment.T_map_cam[None], observations[0].view)
    changes = [_gradient_changes(o, problem, T_lead_local, aligner) for o in observations]
    cells = image_cells(observations, alignment.pixels)
    covariance = sandwich(alignment.hessian, torch.cat(changes).double().cpu().numpy(), cells)
    return replace(alignment, map_covariance_cam=covariance)


def _gradient_changes(
    observation: CameraObservation,
    problem: AlignmentProblem,
    T_lead_local: Pose,
    aligner: Aligner,
) -> Tensor:
    """Changes (N, 6) of the points' gradients by the errors of their depths, in the lead's pose.

    Of many points every second or third stands for its neighbours in the view.
    """
    view = observation.view
    changes = view.points.new_zeros(len(view), 6)
    if view.depth_errors is None:
        return changes
    origin = problem.observations[0].view.origin
    stage = Stage(FINE, 0, keep=None, max_points=POINTS)
    system = aligner.system(observation, stage, origin).on_its_device()
    T_cam_lead = Pose.from_matrix(torch.from_numpy(observation.T_cam_lead)).to(view.points)
    every = stage.every(len(view))
    errors = every * view.depth_errors[::every]
    some = system.gradient_changes(T_cam_lead @ T_lead_local, errors)[0]
    changes[::every] = some @ adjoint(T_cam_lead)
    return changes
