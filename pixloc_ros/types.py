"""Inputs and outputs of the localizer: small frozen objects, free of ROS.

Matrices are float64 (4, 4) and named `T_target_source`: `p_target = T_target_source @ p_source`.
Covariances are float64 (6, 6) in map axes, in ROS order: translation in m^2, then rotation in
rad^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix

Cost = TypeVar("Cost", float, NDArray[np.float64])
LEAST_AGREEMENT = 0.02  # floor of 1 - cost, which a loss is divided by


@dataclass(frozen=True, slots=True)
class Frame:
    """One query image with its calibration, stamp and mounting on the vehicle."""

    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    camera: Camera  # calibration of image_rgb, unbatched
    stamp_ns: int
    T_base_cam: Matrix
    name: str = ""
    camera_name: str = ""  # which camera of a rig took the image


@dataclass(frozen=True, slots=True)
class PosePrior:
    """Where the vehicle is believed to be before the image is used."""

    T_map_base: Matrix
    covariance: Matrix  # (6, 6), map axes: m^2 and rad^2
    source: str  # "odometry", "gnss", "initialpose", "file", ...
    stamp_ns: int
    point_ids: NDArray[np.int32] | None = None  # (N,) map points to align with; None: any
    ambiguity_m: float | None = None  # of the estimate that this prior continues, see Estimate


class Status(StrEnum):
    """The verdict on one frame; only OK carries a pose."""

    OK = "OK"
    REJECTED = "REJECTED"  # aligned, but an acceptance test failed
    AMBIGUOUS = "AMBIGUOUS"  # two different poses explain the image about as well
    FAILED = "FAILED"  # nothing to align: no prior, no map here, unusable image


class Reason(StrEnum):
    """Why a frame got its status: stable codes, explained in docs/guide/troubleshooting.md."""

    OK = "ok"
    NO_PRIOR = "no_prior"
    NO_CAMERA_INFO = "no_camera_info"
    CALIBRATION_UNSETTLED = "calibration_unsettled"
    NO_EXTRINSICS = "no_extrinsics"
    BAD_IMAGE = "bad_image"
    FROZEN_IMAGE = "frozen_image"
    ODD_STAMP = "odd_stamp"
    OUT_OF_MAP = "out_of_map"
    TOO_FEW_POINTS = "too_few_points"
    TILES_MISSING = "tiles_missing"
    NON_FINITE = "non_finite"
    NOT_CONVERGED = "not_converged"
    HIGH_COST = "high_cost"
    FEW_INLIERS = "few_inliers"
    LOW_CONTRAST = "low_contrast"
    HALVES_DISAGREE = "halves_disagree"
    ILL_CONDITIONED = "ill_conditioned"
    FAR_FROM_PRIOR = "far_from_prior"
    AMBIGUOUS = "ambiguous"
    UNCONFIRMED = "unconfirmed"
    SUPERSEDED = "superseded"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL_ERROR = "internal_error"


def loss(cost: Cost, of: float) -> Cost:
    """Return the share of the agreement (1 - cost) that is lost by going from cost `of` to `cost`.

    Works on one cost or on an array of them. Negative where `cost` is the lower one.
    """
    return (cost - of) / max(1.0 - of, LEAST_AGREEMENT)


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best of all aligned hypotheses, on the CPU. Pixels refer to the full query image.

    For a rig, `cam` is the lead camera, and each point's pixels lie in the image of the camera that
    the point was selected for.
    """

    T_map_cam: Matrix
    T_map_cam_prior: Matrix  # where the prior puts the camera
    hessian: Matrix  # (6, 6) weighted Gauss-Newton Hessian of a left update in the camera frame
    covariance_cam: Matrix  # (6, 6) of the same update: m^2 and rad^2, before calibration
    cost: float  # mean robust cost of all points at the finest level; points out of view count as 1
    cost_per_level: tuple[float, ...]  # coarse to fine
    inlier_share: float  # of all points in the map view
    iterations: tuple[int, ...]  # per level
    converged: bool
    condition: float  # condition number of the scaled Hessian
    hypotheses: int
    runner_up_cost: float  # best distinct other pose; inf if there is none
    points_map: NDArray[np.float64]  # (N, 3) metres
    pixels_prior: NDArray[np.float32]  # (N, 2) projections at the prior, NaN behind the camera
    pixels: NDArray[np.float32]  # (N, 2) projections at the result, NaN behind the camera
    residuals: NDArray[np.float32]  # (N,) norm of the feature residual in 0..2, NaN out of view
    runner_up_T_map_cam: Matrix | None = None
    hypotheses_dropped: int = 0  # drawn, but there was no memory for them
    hypotheses_needed: int = 0  # to cover the prior, whether drawn or not
    points_per_camera: tuple[int, ...] = ()  # of a rig: points are sorted by camera, lead first
    inlier_share_per_camera: tuple[float, ...] = ()
    # (6, 6) as covariance_cam: what uncertain depths of the map's points add; None: nothing known
    map_covariance_cam: Matrix | None = None

    @property
    def runner_up_loss(self) -> float:
        """Share of the agreement (1 - cost) that the best other pose loses; inf without one."""
        return loss(self.runner_up_cost, self.cost)

    def of_camera(self, index: int) -> Alignment:
        """Return a copy that has only the points of one camera of the rig; index 0 is the lead."""
        ends = np.cumsum(self.points_per_camera or (len(self.points_map),))
        own = slice(ends[index - 1] if index else 0, ends[index])
        return replace(self.with_point_arrays(lambda array: array[own]), points_per_camera=())

    def with_point_arrays(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Alignment:
        """Return a copy with each array that has a row per point changed."""
        names = ("points_map", "pixels_prior", "pixels", "residuals")
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against a pose; docs/lab/verification.md explains each measure.

    Agreement is 1 - cost, where cost is the mean robust cost of the points. Pixels refer to the
    image as the network receives it.
    """

    sharpness: float  # smallest share of the agreement that is lost 6 px away from the pose
    contrast: float  # mean share of the agreement that is lost 12 px away from the pose
    spread: float  # share of the image cells with points that contain an inlier
    runner_up_loss: float  # share of the agreement that the next best pose loses; inf without one
    halves_px: float = math.nan  # between poses of two halves of the points; NaN: not needed


@dataclass(frozen=True, slots=True)
class ProtectionLevel:
    """A bound that the position error of a right pose exceeds only with a stated risk."""

    error_m: float
    risk: float  # 0..1


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer for one frame: a pose with covariance, or a status with a reason."""

    status: Status
    reason: Reason
    message: str  # one line for people
    stamp_ns: int
    name: str = ""
    T_map_base: Matrix | None = None  # only with status OK
    covariance: Matrix | None = None  # only with status OK; (6, 6) in map axes
    candidate_T_map_base: Matrix | None = None  # the pose found, even if it was rejected
    prior: PosePrior | None = None
    alignment: Alignment | None = None
    keyframes: tuple[str, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)
    cameras: tuple[str, ...] = ()  # names of the aligned cameras, the lead first
    candidate_covariance: Matrix | None = None  # (6, 6) in map axes, of the candidate
    wrong_probability: float | None = None  # of the candidate, by its evidence
    evidence: Evidence | None = None
    protection_level: ProtectionLevel | None = None  # only with status OK
    # Distance in metres to the farthest other place along the road that explains the images about
    # as well. 0: there is none; None: not compared.
    ambiguity_m: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the pose was accepted."""
        return self.status is Status.OK

    def rejected(self, reason: Reason, message: str) -> Estimate:
        """Return a rejected copy without the pose, which remains as the candidate."""
        return replace(
            self,
            status=Status.REJECTED,
            reason=reason,
            message=message,
            T_map_base=None,
            covariance=None,
            protection_level=None,
        )
