"""Points and poses that explain the images best: triangulation and bundle adjustment by pycolmap.

Each round triangulates all matches with the poses of the round before, then adjusts poses and
points together. Positions are held near the smoothed trajectory, which gives scale and place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.work_folder import Parts
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

HELD_SIGMAS = 3.0  # from the smoothed trajectory; beyond it the pull is constant
MAX_ERROR_PX = 4.0  # of an observation that is kept
MIN_ANGLE_DEG = 1.5  # between the rays of a point
MIN_POINTS = 20  # that an image must see to be placed
ORIENTATION_SIGMA_RAD = np.deg2rad(2.0)  # of the smoothed trajectory, where positions tell nothing
REFINED = 0.8  # of the error before: a refined calibration that is worth it


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """The model and what became of the poses."""

    model: ColmapModel  # of the images that are placed, which are named as in the run
    T_map_cam: Matrix  # (N, 4, 4); as it was where an image could not be placed
    placed: NDArray[np.bool_]  # (N,)
    error_px: float
    refined_intrinsics: bool


def adjust(
    run: ColmapRun,
    T_map_cam: Matrix,
    anchors: Matrix | None,
    config: MappingConfig,
    progress: Progress,
    placed: NDArray[np.bool_] | None = None,
) -> Adjusted:
    """Adjust poses (N, 4, 4), the images' order in the run; only those placed, where (N,) says.

    anchors: (N, 3) positions of the cameras that the result is held near; None leaves the scale
    and the place as they are, to the gauge of the first two images. What an interrupted build has
    adjusted from the same start is used again.
    """
    parts, key = Parts(run.folder), _key(T_map_cam, anchors, config, placed)
    model_dir = run.folder / key
    if key not in parts:
        arrays = _adjusted(run, T_map_cam, anchors, config, progress, placed, model_dir)
        parts.put(key, arrays)
    arrays = parts.get(key)
    error_px, refined = arrays["figures"].tolist()
    return Adjusted(
        read_model(model_dir),
        arrays["T_map_cam"],
        arrays["placed"].astype(bool),
        error_px,
        bool(refined),
    )


def _key(
    T_map_cam: Matrix,
    anchors: Matrix | None,
    config: MappingConfig,
    placed: NDArray[np.bool_] | None,
) -> str:
    digest = hashlib.sha256(T_map_cam.tobytes())
    for array in (anchors, placed):
        digest.update(b"-" if array is None else array.tobytes())
    chosen = (config.rounds, config.position_sigma_m, config.refine_intrinsics, config.max_error_px)
    digest.update(repr(chosen).encode())
    return f"adjusted-{digest.hexdigest()[:16]}"


def _adjusted(
    run: ColmapRun,
    T: Matrix,
    anchors: Matrix | None,
    config: MappingConfig,
    progress: Progress,
    placed: NDArray[np.bool_] | None,
    model_dir: Path,
) -> Arrays:
    """Write the adjusted model; poses, who is placed, the error, whether cameras were refined."""
    always, T_start = config.refine_intrinsics == "always", T
    for number in progress(range(config.rounds), "Adjusting poses", config.rounds):
        last = number == config.rounds - 1
        reconstruction = run.reconstruct(T, placed)
        _solve(run, reconstruction, anchors, config, refine=always and last)
        if anchors is not None:
            turn_back(run, reconstruction, T_start, config.position_sigma_m)
        _filter(run, reconstruction)
        T = run.poses(reconstruction, T)
    refined = always
    error_px = reconstruction.compute_mean_reprojection_error()
    if config.refine_intrinsics == "auto" and error_px > config.max_error_px * REFINED:
        trial = reconstruction.__deepcopy__({})
        _solve(run, trial, anchors, config, refine=True)
        _filter(run, trial)
        if trial.compute_mean_reprojection_error() < REFINED * error_px:
            reconstruction, refined = trial, True
            T = run.poses(reconstruction, T)
    reconstruction.update_point_3d_errors()
    seen = _placed(run, reconstruction)
    figures = np.array([reconstruction.compute_mean_reprojection_error(), float(refined)])
    _write(run, reconstruction, seen, model_dir)
    return {"T_map_cam": T, "placed": seen.astype(np.uint8), "figures": figures}


def _write(run: ColmapRun, reconstruction: Any, placed: NDArray[np.bool_], model_dir: Path) -> None:
    """Write the model of the images that are placed."""
    model_dir.mkdir(exist_ok=True)
    for image_id in list(reconstruction.reg_image_ids()):
        image = reconstruction.image(image_id)
        if not placed[run.number(image.name)]:
            reconstruction.deregister_frame(image.frame_id)
    with run.quiet():
        reconstruction.write_binary(str(model_dir))


def _solve(
    run: ColmapRun,
    reconstruction: Any,
    anchors: Matrix | None,
    config: MappingConfig,
    refine: bool,
) -> None:
    pycolmap = run.pycolmap
    options = run.adjustment_options(refine)
    problem = pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.reg_image_ids():
        problem.add_image(image_id)
    with run.quiet():
        if anchors is None:
            problem.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
            pycolmap.create_default_bundle_adjuster(options, problem, reconstruction).solve()
            return
        held = pycolmap.PosePriorBundleAdjustmentOptions()
        # Huber's loss, not Cauchy's: on a straight road images alone tell the scale so weakly that
        # a loss that lets go gave up whole stretches (6 m on KITTI 03).
        held.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.HUBER
        held.ceres.prior_position_loss_scale = HELD_SIGMAS
        held.alignment_ransac.random_seed = 0
        priors = _priors(run, reconstruction, anchors, config.position_sigma_m)
        pycolmap.create_pose_prior_bundle_adjuster(
            options, held, problem, priors, reconstruction
        ).solve()


def turn_back(run: ColmapRun, reconstruction: Any, T_start: Matrix, sigma_m: float) -> None:
    """Turn the whole so that it lies as it did before, by positions and by orientations.

    Positions alone, which hold it, do not tell the roll about a straight road.
    """
    adjusted = [run.number(reconstruction.image(i).name) for i in reconstruction.reg_image_ids()]
    T = run.poses(reconstruction, T_start)
    turn = turn_between(T[adjusted], T_start[adjusted], sigma_m)
    rotation = run.pycolmap.Rotation3d(turn[:3, :3])
    reconstruction.transform(run.pycolmap.Sim3d(1.0, rotation, turn[:3, 3]))


def turn_between(T: Matrix, T_start: Matrix, sigma_m: float) -> Matrix:
    """The turn (4, 4) about their middle that brings poses (N, 4, 4) nearest to those before."""
    center, center_start = T[:, :3, 3].mean(0), T_start[:, :3, 3].mean(0)
    B = (T_start[:, :3, 3] - center_start).T @ (T[:, :3, 3] - center) / sigma_m**2
    B += (T_start[:, :3, :3] @ np.swapaxes(T[:, :3, :3], -1, -2)).sum(0) / ORIENTATION_SIGMA_RAD**2
    U, _, Vt = np.linalg.svd(B)  # Wahba's problem
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    return se3.make(R, center - R @ center)


def _priors(run: ColmapRun, reconstruction: Any, anchors: Matrix, sigma_m: float) -> list[Any]:
    priors = []
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        prior = run.pycolmap.PosePrior()
        prior.pose_prior_id = image_id
        prior.corr_data_id = image.data_id
        prior.position = anchors[run.number(image.name)]
        prior.position_covariance = np.eye(3) * sigma_m**2
        prior.coordinate_system = run.pycolmap.PosePriorCoordinateSystem.CARTESIAN
        priors.append(prior)
    return priors


def _filter(run: ColmapRun, reconstruction: Any) -> None:
    manager = run.pycolmap.ObservationManager(reconstruction)
    manager.filter_all_points3D(MAX_ERROR_PX, MIN_ANGLE_DEG)


def _placed(run: ColmapRun, reconstruction: Any) -> NDArray[np.bool_]:
    placed = np.zeros(len(run.names), bool)
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        placed[run.number(image.name)] = image.num_points3D >= MIN_POINTS
    return placed
