"""How a frame is localized: network, view of the map, alignment, acceptance, search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pixloc_ros.config.section import Section


class FeaturesConfig(Section):
    """The network and the size of the image it sees."""

    weights: str = Field(default="compact_seed", description="name of packaged weights, or a path")
    max_side_px: int = Field(
        default=0,
        ge=0,
        description="larger images are reduced to this side; 0: as in the map",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the network on a CPU; auto: bfloat16 where the CPU has it",
    )

    @field_validator("max_side_px")
    @classmethod
    def _check_side(cls, side_px: int) -> int:
        if 0 < side_px < 64:
            raise ValueError("0, or at least 64")
        return side_px


class ViewConfig(Section):
    """Which part of the map a frame is aligned against."""

    keyframes: int = Field(default=3, ge=1, description="reference images, nearest and covisible")
    max_points: int = Field(default=1500, ge=16, description="points aligned per frame")
    min_points: int = Field(default=50, ge=1, description="a view of fewer is not worth aligning")
    max_viewpoint_change: float = Field(
        default=0.4, gt=0, description="of a point now and when mapped: angle in rad + log of scale"
    )
    cull_hidden: bool = Field(
        default=True, description="leave out what the prior has behind surfaces, in maps of clouds"
    )
    max_distance_m: float = Field(
        default=30.0, gt=0, description="beyond the nearest keyframe: no map"
    )
    extra_view_spacing_m: float = Field(
        default=5.0, gt=0, description="a view serves so far around it"
    )
    max_extra_views: int = Field(default=8, ge=0, description="more views where the prior is vague")
    reselect_distance_m: float = Field(
        default=0.5, ge=0, description="chosen anew where the pose moved more"
    )
    reselect_angle_deg: float = Field(
        default=2.0, ge=0, description="chosen anew where it turned more"
    )


class TilesConfig(Section):
    """Which tiles of the map are kept open, on the device."""

    budget_mb: float = Field(
        default=2000.0, ge=0, description="memory of open tiles; those of a view are always opened"
    )
    prefetch_m: float = Field(
        default=150.0, ge=0, description="tiles this near are opened in the background"
    )


class HypothesesConfig(Section):
    """How many starts are drawn from the prior's covariance, and how many are kept."""

    max_count: int = Field(default=256, ge=1, description="starts when the prior is wide")
    convergence_radius_px: float = Field(
        default=25.0, gt=0, description="mean image motion that one start can mend"
    )
    coverage_sigma: float = Field(default=2.0, gt=0, description="sigmas of the prior to cover")
    screening_points: int = Field(default=400, ge=16, description="points of the first, quick look")
    screening_iterations: int = Field(default=8, ge=1, description="steps of the first, quick look")
    keep_views: int = Field(default=4, ge=1, description="views kept after the quick look")
    keep_screened: int = Field(default=12, ge=1, description="starts kept after the quick look")
    keep_coarse: int = Field(default=6, ge=1, description="kept after the coarse level")
    keep_middle: int = Field(default=2, ge=1, description="kept after the middle level")
    keep_fine: int = Field(default=2, ge=1, description="compared at the end")
    alternative_step_m: float = Field(
        default=3.0, gt=0, description="what was found is compared with poses so far ahead, behind"
    )
    max_alternatives: int = Field(
        default=8, ge=0, description="so many of them, as far as the prior allows; 0: none"
    )
    same_pose_m: float = Field(
        default=0.3, gt=0, description="results nearer than this are the same"
    )
    same_pose_deg: float = Field(
        default=1.0, gt=0, description="results nearer than this are the same"
    )


class AlignmentConfig(Section):
    """Levenberg-Marquardt of section 3.1 of the paper. Numbers are those of policy pixloc_ros."""

    policy: Literal["pixloc_ros", "reference"] = Field(
        default="pixloc_ros", description="reference: steps and rules of PixLoc as published"
    )
    robust_scale: float = Field(
        default=0.1, gt=0, description="scale c of the robust cost, on |r|^2"
    )
    iterations: tuple[int, int, int] = Field(
        default=(20, 20, 20), description="at most, coarse to fine"
    )
    stop_px: float = Field(
        default=0.02, gt=0, description="a level stops when a step moves points less"
    )
    inlier_max_squared_residual: float = Field(
        default=0.3, gt=0, description="|r|^2 of an inlier; unrelated: 2"
    )
    min_points: int = Field(default=12, ge=6, description="fewer points in view fail a hypothesis")
    max_step_m: float = Field(default=5.0, gt=0, description="longer steps are shortened")
    max_step_deg: float = Field(default=10.0, gt=0, description="larger rotations are shortened")


class AcceptanceConfig(Section):
    """When a result is believed. Anything else is a status with a reason."""

    max_cost: float = Field(
        default=0.80, gt=0, description="mean robust cost, 0 perfect, 1 all outliers"
    )
    min_inlier_share: float = Field(
        default=0.20, ge=0, le=1, description="share of points that agree"
    )
    min_camera_share: float = Field(
        default=0.05, ge=0, le=1, description="a camera of a rig with fewer is left out"
    )
    max_condition: float = Field(default=1e5, gt=1, description="of the scaled Hessian")
    max_sigma_from_prior: float = Field(
        default=5.0, gt=0, description="Mahalanobis distance of the result"
    )
    ambiguity_margin: float = Field(
        default=0.1, ge=0, description="cost by which the best must win"
    )


class CovarianceConfig(Section):
    """The covariance on maps without a calibration of their own, see docs/lab/covariance.md."""

    from_map: bool = Field(default=True, description="a calibration in the map wins over these")
    scale: float = Field(default=2.0, gt=0, description="factor on the aligner's covariance")
    floor_m: float = Field(default=0.006, ge=0, description="sigma of the map itself, per axis")
    floor_deg: float = Field(default=0.02, ge=0, description="sigma of the map itself, per axis")


class RetrievalConfig(Section):
    """Where to look for a frame that has no prior: where keyframes look like it."""

    enabled: bool = Field(default=True, description="search the map where nothing tells the place")
    candidates: int = Field(default=10, ge=1, description="keyframes that look most alike")
    places: int = Field(default=3, ge=1, description="distinct places among them to try")
    same_place_m: float = Field(default=15.0, ge=0, description="keyframes so near are one place")
    sigma_m: float = Field(
        default=1.5, gt=0, description="off the keyframes' way, per axis; along it: their spacing"
    )
    sigma_deg: float = Field(default=3.0, gt=0, description="off the keyframes' heading, per axis")
