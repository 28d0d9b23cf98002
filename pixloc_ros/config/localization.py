"""How a frame is localized: network, view of the map, alignment, acceptance, retrieval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pixloc_ros.config.section import Section

Iterations = Annotated[int, Field(ge=1, le=1000)]
# Alignment from the middle level on needs initial poses closer by this factor.
CLOSER_ON_MIDDLE_LEVEL = 3.0
# Keyframes whose points are considered for a provisional view.
PROVISIONAL_KEYFRAMES = 10


class FeaturesConfig(Section):
    """The network, and the size of the image that it receives."""

    weights: str = Field(
        default="compact_seed",
        description="Name of packaged network weights, or the path of a weights file or of an "
        "exported network (.onnx). It must be the network that the map was built with.",
    )
    backend: Literal["auto", "torch", "onnxruntime", "tensorrt"] = Field(
        default="auto",
        description="Library that runs the network. auto: onnxruntime for an exported network, "
        "torch for all other weights. tensorrt: TensorRT by way of onnxruntime, on a GPU. With "
        "onnxruntime and tensorrt, features.weights must name a file that `pixloc export` wrote.",
    )
    max_side_px: int = Field(
        default=0,
        ge=0,
        le=16384,
        description="Images with a longer side than this, in pixels, are reduced to it before the "
        "network sees them. Smaller is faster and converges from farther away, larger is more "
        "accurate. 0: the size that the map was built with.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network on a CPU. auto: bfloat16, which is faster, if "
        "the CPU has instructions for it. A GPU always uses float16, and onnxruntime on a CPU "
        "float32.",
    )

    @field_validator("max_side_px")
    @classmethod
    def _check_side(cls, side_px: int) -> int:
        if 0 < side_px < 64:
            raise ValueError("0, or at least 64")
        return side_px


class ViewConfig(Section):
    """Which part of the map a frame is aligned with."""

    keyframes: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of keyframes whose points are considered; they are near the prior and "
        "share points. More keyframes offer more points to choose from and take longer.",
    )
    max_points: int = Field(
        default=1500,
        ge=16,
        le=1_000_000,
        description="Maximum number of map points that a frame is aligned with. More points are "
        "more accurate; time grows in proportion.",
    )
    observations: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Maximum number of keyframes that a point is compared with; those that "
        "observed it from a view most similar to the prior's come first. More take longer; the "
        "published method compares with all.",
    )
    min_points: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="A camera with fewer map points in view than this is left out; if no camera is "
        "left, the frame fails with too_few_points.",
    )
    max_viewpoint_change: float = Field(
        default=0.4,
        ge=1e-3,
        le=10.0,
        description="A point is used if the prior views it much as its keyframe did: the angle "
        "between the two rays in rad, plus the absolute logarithm of the change of scale, must be "
        "at most this. Larger keeps more points, which match less well.",
    )
    max_initial_viewpoint_change: float = Field(
        default=0.8,
        ge=1e-3,
        le=10.0,
        description="The same limit for a provisional view, which replaces one with fewer than "
        "min_points points and considers up to 10 keyframes. The resulting pose must have enough "
        "points within max_viewpoint_change, and is aligned again with those.",
    )
    cull_hidden: bool = Field(
        default=True,
        description="Leave out points that are hidden from the prior by the surfaces of the "
        "keyframes. Only maps of clouds, meshes and depth images have surfaces.",
    )
    max_distance_m: float = Field(
        default=30.0,
        ge=0.1,
        le=1e5,
        description="A prior farther than this from every keyframe, in metres, is outside the map: "
        "the frame fails with out_of_map.",
    )
    condition_radius_m: float = Field(
        default=10.0,
        ge=0.1,
        le=1e5,
        description="Only for updated maps: the most similar keyframe within this distance of the "
        "prior, in metres, decides under which light condition points are compared.",
    )
    extra_view_spacing_m: float = Field(
        default=5.0,
        ge=0.1,
        le=1e5,
        description="If the prior is vague, further views of the map are chosen along it, at least "
        "this far apart, in metres. Smaller localizes more frames and takes longer.",
    )
    max_extra_views: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Maximum number of these further views, besides the one at the prior.",
    )
    reselect_distance_m: float = Field(
        default=0.5,
        ge=0.0,
        le=1e5,
        description="If alignment moved the pose by more than this, in metres, points are selected "
        "again and the frame is aligned once more. Larger saves time and costs accuracy.",
    )
    reselect_angle_deg: float = Field(
        default=2.0,
        ge=0.0,
        le=180.0,
        description="If alignment turned the pose by more than this, in degrees, points are "
        "selected again and the frame is aligned once more.",
    )

    def provisional(self) -> ViewConfig:
        """The settings of a provisional view."""
        change = max(self.max_viewpoint_change, self.max_initial_viewpoint_change)
        keyframes = max(self.keyframes, PROVISIONAL_KEYFRAMES)
        return self.model_copy(update={"max_viewpoint_change": change, "keyframes": keyframes})


class TilesConfig(Section):
    """Which tiles of the map are kept in the device's memory."""

    budget_mb: float = Field(
        default=2000.0,
        ge=0.0,
        le=1e7,
        description="Memory for open tiles of the map in MB. Beyond it, the tiles that were not "
        "used for the longest time are closed; those of the current view stay open whatever their "
        "size.",
    )
    prefetch_m: float = Field(
        default=150.0,
        ge=0.0,
        le=1e5,
        description="Tiles nearer to the vehicle than this, in metres, are opened in the "
        "background before they are needed.",
    )
    fetch_ahead_m: float = Field(
        default=1000.0,
        ge=0.0,
        le=1e6,
        description="For a map behind a URL: tiles nearer to the vehicle than this, in metres, are "
        "fetched into the cache on disk before they are needed, those ahead of the vehicle first.",
    )
    fetch_retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="For a map behind a URL: number of retries of a failed download where a "
        "program waits for the file: when a map is opened, in a replay and in pixloc map fetch. "
        "The node does not wait, and keeps trying to fetch the tiles that it needs.",
    )
    fetch_retry_s: float = Field(
        default=1.0,
        ge=0.01,
        le=60.0,
        description="For a map behind a URL: pause before the first retry, in seconds. It doubles "
        "with each failure, up to a minute.",
    )
    cache_folder: str = Field(
        default="",
        description="Folder of the cache on disk for maps behind a URL; several processes may "
        "share it. Empty: pixloc/tiles below $XDG_CACHE_HOME, or ~/.cache.",
    )
    cache_mb: float = Field(
        default=10_000.0,
        ge=1.0,
        le=1e9,
        description="Size of that cache in MB. Beyond it, the files that were not used for the "
        "longest time are removed.",
    )


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
        "in metres, that the prior excludes, because the prior may be wrong and streets repeat. "
        "0: no comparison.",
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

    def drawn_closer(self) -> HypothesesConfig:
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


class AcceptanceConfig(Section):
    """When a result is accepted. Any other result gets a status with a reason."""

    max_wrong_probability: float = Field(
        default=0.05,
        ge=1e-9,
        le=1.0,
        description="A pose is accepted if its probability of being wrong, estimated from all "
        "evidence in the image, is at most this. Larger accepts more poses, and more wrong ones.",
    )
    max_provisional_wrong_probability: float = Field(
        default=0.01,
        ge=1e-9,
        le=1.0,
        description="The same limit for a pose that was first aligned with a provisional view "
        "(view.max_initial_viewpoint_change).",
    )
    max_cost: float = Field(
        default=0.90,
        ge=0.0,
        le=1.0,
        description="No pose with a mean robust cost above this is accepted, whatever the other "
        "evidence: 0 is a perfect match, 1 no match at all.",
    )
    max_provisional_cost: float = Field(
        default=0.75,
        ge=0.0,
        le=1.0,
        description="The same limit for a pose that was first aligned with a provisional view.",
    )
    min_runner_up_loss: float = Field(
        default=0.12,
        ge=0.0,
        le=10.0,
        description="A result is ambiguous if the next best pose loses a smaller share of the "
        "agreement (1 - cost) than this. Larger rejects more frames where streets repeat.",
    )
    beyond_prior_margin: float = Field(
        default=0.2,
        ge=0.0,
        le=10.0,
        description="A result and a pose that its prior excludes are told apart by the image only "
        "if one of them loses more than this share of the agreement. If the result does, it is "
        "rejected with far_from_prior, because the image contradicts the prior. If neither does, "
        "only the prior tells them apart, and the protection level covers both.",
    )
    always_compare_halves: bool = Field(
        default=False,
        description="Compare the poses of two halves of the points even if the other evidence is "
        "sufficient: slower, for `pixloc verification collect` and for studies of the evidence.",
    )
    min_camera_share: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="A camera of a rig with a smaller share of inliers than this is left out, as "
        "it may be covered or frozen.",
    )
    max_condition: float = Field(
        default=1e5,
        ge=1.0,
        le=1e15,
        description="A result is rejected with ill_conditioned if the condition number of its "
        "scaled Hessian is above this, because some direction is then hardly determined.",
    )
    max_sigma_from_prior: float = Field(
        default=5.0,
        ge=0.0,
        le=1e6,
        description="A result farther than this from the prior, in standard deviations of both, is "
        "rejected with far_from_prior. Larger accepts more results if priors are inaccurate.",
    )

    def provisional(self) -> AcceptanceConfig:
        """The settings for a pose that was first aligned with a provisional view."""
        probability = min(self.max_wrong_probability, self.max_provisional_wrong_probability)
        cost = min(self.max_cost, self.max_provisional_cost)
        return self.model_copy(update={"max_wrong_probability": probability, "max_cost": cost})


class CovarianceConfig(Section):
    """The covariance on maps without a calibration of their own, see docs/lab/covariance.md."""

    from_map: bool = Field(
        default=True,
        description="Use the map's calibration, made by `pixloc map calibrate`, instead of the "
        "following numbers, if the map has one.",
    )
    scale: float = Field(
        default=4.0,
        ge=1e-6,
        le=1e6,
        description="Factor on the covariance that alignment reports.",
    )
    floor_m: float = Field(
        default=0.006,
        ge=0.0,
        le=1e3,
        description="Standard deviation of the map itself along each axis, in metres, which is "
        "added to the covariance.",
    )
    floor_deg: float = Field(
        default=0.02,
        ge=0.0,
        le=180.0,
        description="Standard deviation of the map itself about each axis, in degrees, which is "
        "added to the covariance.",
    )


class RetrievalConfig(Section):
    """Where to search for a frame without a prior: at keyframes that resemble it."""

    enabled: bool = Field(
        default=True,
        description="Search the whole map for a frame if neither odometry nor GNSS nor an initial "
        "pose tells where it is.",
    )
    candidates: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Number of keyframes most similar to the frame, which are grouped into places.",
    )
    places: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of these places that are tried. More localize more frames and take "
        "longer.",
    )
    same_place_m: float = Field(
        default=15.0,
        ge=0.0,
        le=1e5,
        description="Keyframes nearer to each other than this, in metres, are one place.",
    )
    sigma_m: float = Field(
        default=1.5,
        ge=1e-3,
        le=1e4,
        description="Standard deviation per axis, in metres, of the vehicle's position across the "
        "keyframes' path; along the path, their spacing is added.",
    )
    sigma_deg: float = Field(
        default=3.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation per axis, in degrees, of the vehicle's attitude relative "
        "to the keyframes'.",
    )
