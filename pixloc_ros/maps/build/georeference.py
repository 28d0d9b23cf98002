"""A similarity between two sets of points, robust to wrong pairs: models to GNSS, or to poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapModel

TRIALS = 500
MIN_PAIRS = 4
MIN_INLIERS = 0.5  # of the pairs
ANTENNA_ROUNDS = 5
MIN_ASPECT = 0.01  # second to first extent of the places


@dataclass(frozen=True, slots=True)
class Similarity:
    """p_map = scale * R_map_model @ p_model + t."""

    scale: float
    R_map_model: Matrix  # (3, 3)
    t: Matrix  # (3,)

    def points(self, points_model: Matrix) -> Matrix:
        """(N, 3) in the map."""
        return self.scale * points_model @ self.R_map_model.T + self.t

    def poses(self, T_model_cam: Matrix) -> Matrix:
        """Poses (N, 4, 4) in the map: rigid, for only places are scaled."""
        T_map_cam = T_model_cam.copy()
        T_map_cam[:, :3, :3] = self.R_map_model @ T_model_cam[:, :3, :3]
        T_map_cam[:, :3, 3] = self.points(T_model_cam[:, :3, 3])
        return T_map_cam


@dataclass(frozen=True, slots=True)
class AlignmentReport:
    """How well the similarity fits."""

    scale: float
    pairs: int
    inliers: int
    rms_m: float  # of the inliers
    worst_m: float  # of the inliers
    outliers: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"aligned with scale {self.scale:.5g}: {self.inliers} of {self.pairs} images within "
            f"{self.worst_m:.2f} m, RMS {self.rms_m:.3f} m"
        )
        return text + (f"; left out: {', '.join(self.outliers)}" if self.outliers else "")


def fit(model: Matrix, target: Matrix) -> Similarity:
    """Least squares over all pairs (N, 3); Umeyama, PAMI 1991."""
    mean_model, mean_target = model.mean(0), target.mean(0)
    a, b = model - mean_model, target - mean_target
    U, D, Vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = (U * sign) @ Vt
    scale = float((D * sign).sum() / (a**2).sum(1).mean())
    return Similarity(scale, R, mean_target - scale * R @ mean_model)


def fit_robust(
    names: Sequence[str], model: Matrix, target: Matrix, tolerance_m: float
) -> tuple[Similarity, AlignmentReport]:
    """The similarity that most pairs (N, 3) agree with to tolerance_m, refined on those.

    Raises MapError for too few pairs, for places on a line, and where fewer than half agree.
    """
    if len(names) < MIN_PAIRS:
        raise MapError(f"{len(names)} images have a place to align to; at least {MIN_PAIRS} must")
    zero = target.mean(0)  # UTM coordinates would cost digits
    local = target - zero
    inliers = _consensus(model, local, tolerance_m)
    for _ in range(5):
        found = fit(model[inliers], local[inliers])
        errors_m = np.linalg.norm(found.points(model) - local, axis=-1)
        again = errors_m < tolerance_m
        if again.sum() < max(MIN_PAIRS, MIN_INLIERS * len(names)):
            raise MapError(
                f"model and places do not fit: {again.sum()} of {len(names)} images agree within "
                f"{tolerance_m:g} m; are they of the same drive, and is the model whole?"
            )
        inliers = again
    kept = errors_m[inliers]
    _check_spread(local[inliers], float(np.sqrt((kept**2).mean())))
    report = AlignmentReport(
        scale=found.scale,
        pairs=len(names),
        inliers=int(inliers.sum()),
        rms_m=float(np.sqrt((kept**2).mean())),
        worst_m=float(kept.max()),
        outliers=tuple(n for n, good in zip(names, inliers, strict=True) if not good),
    )
    return replace(found, t=found.t + zero), report


def fit_antenna(
    names: Sequence[str],
    T_model_cam: Matrix,
    target: Matrix,
    antenna_cam: Matrix,
    tolerance_m: float,
) -> tuple[Similarity, AlignmentReport]:
    """As fit_robust, where the targets (N, 3) are places of an antenna that sits at antenna_cam
    (3,), metres, in the frame of every camera (N, 4, 4).

    How cameras are turned is known once the model is aligned, so this is repeated.
    """
    found, report = fit_robust(names, T_model_cam[:, :3, 3], target, tolerance_m)
    for _ in range(ANTENNA_ROUNDS if antenna_cam.any() else 0):
        cameras = target - found.R_map_model @ T_model_cam[:, :3, :3] @ antenna_cam
        found, report = fit_robust(names, T_model_cam[:, :3, 3], cameras, tolerance_m)
    return found, report


def apply(found: Similarity, model: ColmapModel) -> ColmapModel:
    """The model in the map's frame and scale."""
    T_map_cam = found.poses(se3.inverse([image.T_cam_world for image in model.images]))
    images = tuple(
        replace(image, T_cam_world=se3.inverse(T))
        for image, T in zip(model.images, T_map_cam, strict=True)
    )
    return replace(model, images=images, points_world=found.points(model.points_world))


def _check_spread(places: Matrix, rms_m: float) -> None:
    """Raise MapError where places (N, 3) are on a line, for all their errors tell."""
    sigmas_m = np.linalg.svd(places - places.mean(0), compute_uv=False) / np.sqrt(len(places))
    if sigmas_m[1] < max(MIN_ASPECT * sigmas_m[0], 2 * rms_m):
        raise MapError(
            f"the places to align to are on a line to {sigmas_m[1]:.2f} m, which leaves the roll "
            f"about it open; add images beside it, or give poses with --posed-images"
        )


def _consensus(model: Matrix, target: Matrix, tolerance_m: float) -> NDArray[np.bool_]:
    """(N,) pairs that agree with the similarity of three pairs that most agree with (RANSAC)."""
    rng = np.random.default_rng(0)
    best = np.ones(len(model), bool)
    best_cost = np.inf
    for _ in range(TRIALS):
        sample = rng.choice(len(model), 3, replace=False)
        if np.linalg.matrix_rank(model[sample] - model[sample].mean(0), tol=1e-9) < 2:
            continue
        found = fit(model[sample], target[sample])
        errors_m = np.linalg.norm(found.points(model) - target, axis=-1)
        cost = np.minimum(errors_m, tolerance_m).sum()
        if cost < best_cost:
            best, best_cost = errors_m < tolerance_m, cost
    return best
