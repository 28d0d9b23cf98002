"""How an image is aligned with the map: from which poses, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pixloc_ros.config.section import Section

Iterations = Annotated[int, Field(ge=1, le=1000)]
# Alignment from the middle level on needs initial poses closer by this factor.
CLOSER_ON_MIDDLE_LEVEL = 3.0


class HypothesesConfig(Section):
    """How many initial poses are drawn from the prior's covariance, and which of them are kept."""

    max_initial_poses: int = Field(
        default=256,
        ge=1,
        le=16384,
        description="Maximum number of initial poses that are drawn from the prior; the larger its "
        "covariance, the more are drawn. More poses localize more frames and take longer; 1 uses "
        "only the prior itself.",
    )
    convergence_radius_px: float = Field(
        default=25.0,
        ge=0.1,
        le=1e4,
        description="Mean distance, in pixels of the network's image, from which alignment is "
        "expected to converge. Larger draws fewer initial poses.",
    )
    coverage_sigma: float = Field(
        default=2.0,
        ge=0.1,
        le=100.0,
        description="Initial poses cover the prior up to this many standard deviations.",
    )
    screening_points: int = Field(
        default=400,
        ge=16,
        le=1_000_000,
        description="Number of points used by the coarse screening, which selects promising poses "
        "among many initial ones.",
    )
    screening_iterations: int = Field(
        default=8, ge=1, le=1000, description="Number of steps of the coarse screening."
    )
    keep_views: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Number of views that are fully aligned after the coarse screening.",
    )
    keep_screened: int = Field(
        default=12,
        ge=1,
        le=16384,
        description="Number of poses per view kept after the coarse screening.",
    )
    keep_coarse: int = Field(
        default=6, ge=1, le=16384, description="Number of poses kept after the coarse level."
    )
    keep_middle: int = Field(
        default=2, ge=1, le=16384, description="Number of poses kept after the middle level."
    )
    keep_fine: int = Field(
        default=2,
        ge=1,
        le=16384,
        description="Number of poses that are compared after the fine level. With 1, poses that "
        "fit equally well go unnoticed.",
    )
    min_agreement_share: float = Field(
        default=0.75,
        ge=0.0,
        le=1.0,
        description="On the coarse and middle level, poses whose agreement (1 - cost) is below "
        "this share of the best one's are dropped. Larger is faster but may drop the right pose.",
    )
    second_attempt_from: int = Field(
        default=3,
        ge=0,
        le=16384,
        description="A rejected frame is aligned a second time if at least this many initial poses "
        "are needed to cover its prior. The second attempt draws poses three times as close and "
        "begins on the middle level, which occlusion does not mislead. Rejected frames then take "
        "about twice as long. 0: no second attempt.",
    )
    second_attempt_poses: int = Field(
        default=256,
        ge=1,
        le=16384,
        description="Maximum number of initial poses of the second attempt, whatever "
        "max_initial_poses is. More localize more frames and take longer.",
    )
    re_alignment_margin: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Results whose cost is at most this much above the lowest are aligned again, "
        "with views selected at the poses found, before they are compared.",
    )
    alternative_step_m: float = Field(
        default=3.0,
        ge=0.1,
        le=1e4,
        description="The pose found is compared with alternative poses ahead and behind, at "
        "multiples of this distance in metres, as far as the prior allows, because streets "
        "repeat.",
    )
    max_alternatives: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Maximum number of these alternative poses. 0 saves their time and gives up "
        "the protection against repeating streets.",
    )
    beyond_prior_m: float = Field(
        default=16.0,
        ge=0.0,
        le=1e4,
        description="An accepted pose is also compared with poses up to this far ahead and behind, "
        "in metres, that the prior excludes, because the prior may be wrong and streets repeat; "
        "where one explains the image as well, also this far beyond it. 0: no comparison.",
    )
    beyond_prior_step_m: float = Field(
        default=2.0,
        ge=0.1,
        le=1e4,
        description="Distance between these poses, in metres. Larger takes less time and misses "
        "more of them.",
    )
    beyond_prior_every_m: float = Field(
        default=50.0,
        ge=0.0,
        le=1e5,
        description="While tracking, this comparison is made once per this distance, in metres, "
        "and every alternative_step_m if some of the poses explain the images as well. Smaller "
        "notices a wrong prior sooner and takes longer.",
    )
    same_pose_m: float = Field(
        default=0.3,
        ge=1e-3,
        le=1e3,
        description="Two results count as the same pose if they are nearer to each other than "
        "this, in metres, and turned by less than same_pose_deg.",
    )
    same_pose_deg: float = Field(
        default=1.0,
        ge=1e-3,
        le=180.0,
        description="Two results count as the same pose if they are turned by less than this, in "
        "degrees, and nearer than same_pose_m.",
    )

    def for_middle_level(self) -> HypothesesConfig:
        """Return these settings with initial poses as close as the middle level needs them."""
        radius_px = self.convergence_radius_px / CLOSER_ON_MIDDLE_LEVEL
        count = self.second_attempt_poses
        return self.model_copy(
            update={"convergence_radius_px": radius_px, "max_initial_poses": count}
        )


class AlignmentConfig(Section):
    """Levenberg-Marquardt (PixLoc, section 3.1). The defaults are those of policy pixloc_ros."""

    policy: Literal["pixloc_ros", "reference"] = Field(
        default="pixloc_ros",
        description="Rules of the alignment. reference: those of PixLoc as published; the other "
        "settings of this section are then ignored, except inlier_max_squared_residual.",
    )
    robust_scale: float = Field(
        default=0.1,
        ge=1e-6,
        le=100.0,
        description="Squared feature residual at which a point loses half of its weight. Larger "
        "gives more weight to points that differ more.",
    )
    first_level: Literal["coarse", "middle"] = Field(
        default="coarse",
        description="Level at which alignment begins. coarse: converges from farther away and "
        "tolerates blur. middle: is not misled by what covers parts of the image, but needs "
        "closer initial poses.",
    )
    iterations: tuple[Iterations, Iterations, Iterations] = Field(
        default=(20, 20, 20),
        description="Maximum number of steps on the coarse, middle and fine level.",
    )
    stop_motion_px: float = Field(
        default=0.02,
        ge=0.0,
        le=100.0,
        description="A level has converged when a step moves the points by less than this on "
        "average, in pixels of the level. Larger stops sooner and is less accurate.",
    )
    inlier_max_squared_residual: float = Field(
        default=0.3,
        ge=1e-6,
        le=4.0,
        description="A point is an inlier if its squared feature residual is below this. For "
        "unrelated features it is 2.",
    )
    min_points: int = Field(
        default=12,
        ge=6,
        le=1_000_000,
        description="A pose from which fewer points than this are in the image is dropped.",
    )
    max_step_m: float = Field(
        default=5.0, ge=1e-3, le=1e4, description="Longer steps are shortened to this, in metres."
    )
    max_step_deg: float = Field(
        default=10.0,
        ge=1e-3,
        le=180.0,
        description="Steps that turn farther are shortened to this, in degrees.",
    )
