"""Poses from images alone, where a drive has no odometry: global structure from motion (GLOMAP).

Global, not incremental: on drives along the view the incremental mapper often bent the path.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build import georeference
from pixloc_ros.maps.build.colmap_pipeline import SEED, THREADS, ColmapRun, matrix
from pixloc_ros.maps.build.from_bag.drive_images import DriveImages
from pixloc_ros.maps.build.georeference import Similarity
from pixloc_ros.maps.files.recorded_drive import RecordedFixes, Stamps

LEVEL_ROUNDS = 10
MAX_FIX_GAP_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class VisualStart:
    """Poses of the images that could be placed, in a frame and scale of their own."""

    T_model_cam: Matrix  # (N, 4, 4), identity where not placed
    placed: NDArray[np.bool_]  # (N,)


def reconstruct_images(run: ColmapRun) -> VisualStart:
    """Place as many images as possible by their verified matches; the largest model counts.

    Raises MapError where no three images can be placed.
    """
    pycolmap = run.pycolmap
    if not hasattr(pycolmap, "global_mapping"):
        raise MapError("drives without odometry need pycolmap 4: pip install 'pycolmap>=4'")
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads, options.random_seed, options.multiple_models = THREADS, SEED, False
    mapper = options.mapper
    mapper.num_threads, mapper.random_seed = THREADS, SEED
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    adjusted = mapper.bundle_adjustment
    adjusted.refine_focal_length = adjusted.refine_extra_params = False
    output = run.folder / "from_images"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    with run.quiet():
        models = pycolmap.global_mapping(run.database, run.folder / "images", output, options)
    if not models:
        raise MapError(
            "the images alone give no poses: too little overlap, or no sideways motion; record "
            "odometry, or take keyframes closer to each other (mapping.keyframe_flow_share)"
        )
    best = max(models.values(), key=lambda model: model.num_reg_images())
    return _start_of(run, best)


def _start_of(run: ColmapRun, reconstruction: Any) -> VisualStart:
    T = np.tile(np.eye(4), (len(run.names), 1, 1))
    placed = np.zeros(len(run.names), bool)
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        index = run.number(image.name)
        T[index] = se3.inverse(matrix(image.cam_from_world()))
        placed[index] = True
    return VisualStart(T, placed)


def level(T_model_cam: Matrix, T_base_cam: Matrix) -> Similarity:
    """Turn a model so that its vehicles stand upright on average, at zero, heading along x."""
    T_model_base = T_model_cam @ se3.inverse(T_base_cam)
    up = T_model_base[:, :3, 2].mean(0)
    rotation, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [up / np.linalg.norm(up)])
    ahead = rotation.as_matrix() @ T_model_base[0, :3, 0]
    turn = Rotation.from_euler("z", -np.arctan2(ahead[1], ahead[0]))
    R = (turn * rotation).as_matrix()
    return Similarity(1.0, R, -R @ T_model_base[0, :3, 3])


def scaling(way: Matrix, length_m: float | None) -> Similarity:
    """Scale of a model by the straight length of the way (N, 3) of its images.

    Without a length the median step between two images becomes the unit.
    """
    if length_m is not None:
        unit = float(np.linalg.norm(way[-1] - way[0])) / length_m
    else:
        steps = np.linalg.norm(np.diff(way, axis=0), axis=-1)
        unit = float(np.median(steps[steps > 0]))
    return Similarity(1 / unit, np.eye(3), np.zeros(3))


def on_fixes(T_level_cam: Matrix, placed: NDArray[np.bool_], images: DriveImages) -> Similarity:
    """Scale, heading and place of a level model (N, 4, 4), by the fixes at the times of its images.

    Robust (Huber weights): outliers count less. Raises MapError if a drive has no fixes, and for
    fewer than four images with a fix.
    """
    fixes = images.fixes
    if len(fixes) < len(images.drives):
        raise MapError("of several drives without odometry each needs GNSS fixes")
    T_level_cam, T_base_cam = T_level_cam[placed], images.T_base_cam[placed]
    target, antenna_base, known = fixes_at(fixes, images.drive_of[placed], images.stamps_ns[placed])
    if known.sum() < georeference.MIN_PAIRS:
        raise MapError(f"{known.sum()} keyframes have a GNSS fix at their time; four are needed")
    found = Similarity(1.0, np.eye(3), np.zeros(3))
    T_level_base = T_level_cam @ se3.inverse(T_base_cam)
    weights = np.ones(int(known.sum()))
    for _ in range(LEVEL_ROUNDS):
        T_base = found.poses(T_level_base[known])
        bases = target[known] - np.einsum("kij,kj->ki", T_base[:, :3, :3], antenna_base[known])
        found = _fit_level(T_level_base[known, :3, 3], bases, weights)
        errors_m = np.linalg.norm(found.points(T_level_base[known, :3, 3]) - bases, axis=-1)
        sigma_m = max(1.5 * float(np.median(errors_m)), 0.1)
        weights = np.minimum(1.0, sigma_m / np.maximum(errors_m, 1e-9))
    return found


def fixes_at(
    fixes: Sequence[RecordedFixes], drive_of: NDArray[np.int64], stamps_ns: Stamps
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    """Antenna positions (N, 3) at stamps, their levers (N, 3), and which (N,) are known."""
    target, antenna = np.zeros((2, len(stamps_ns), 3))
    known = np.zeros(len(stamps_ns), bool)
    for number, own in enumerate(fixes):
        index = np.flatnonzero(drive_of == number)
        t, knots = stamps_ns[index] - own.stamps_ns[0], own.stamps_ns - own.stamps_ns[0]
        after = np.searchsorted(knots, t).clip(1, max(len(knots) - 1, 1)).clip(0, len(knots) - 1)
        gap_s = (knots[after] - knots[np.maximum(after - 1, 0)]) / 1e9
        known[index] = (t >= 0) & (t <= knots[-1]) & (gap_s <= MAX_FIX_GAP_S)
        for axis in range(3):
            target[index, axis] = np.interp(t, knots, own.positions_map[:, axis])
        antenna[index] = own.antenna_base[after]
    return target, antenna, known


def _fit_level(model: Matrix, target: Matrix, weights: Matrix) -> Similarity:
    """Least squares over scale, heading and shift: (N, 3) to (N, 3); z stays up."""
    w = (weights / weights.sum())[:, None]
    mean_model, mean_target = (w * model).sum(0), (w * target).sum(0)
    a, b = model - mean_model, target - mean_target
    R = Rotation.from_euler("z", se3.turn_rad(w * a, b)).as_matrix()
    scale = float((w * (a @ R.T) * b).sum() / (w * a**2).sum())
    return Similarity(scale, R, mean_target - scale * R @ mean_model)
