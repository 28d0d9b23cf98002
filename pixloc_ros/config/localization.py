"""How a frame is localized: network, view of the map, alignment, acceptance, retrieval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pixloc_ros.config.section import Section

Iterations = Annotated[int, Field(ge=1, le=1000)]
CLOSER_ON_MIDDLE_LEVEL = 3.0  # times, than alignment needs them that begins on the coarse level


class FeaturesConfig(Section):
    """The network, and the size of the image that it is given."""

    weights: str = Field(
        default="compact_seed",
        description="Name of packaged network weights, or the path of a weights file or of an "
        "exported network (.onnx). It must be the network that the map was built with.",
    )
    backend: Literal["auto", "torch", "onnxruntime", "tensorrt"] = Field(
        default="auto",
        description="What runs the network: auto takes onnxruntime for an exported network and "
        "torch for all other weights; tensorrt is that of onnxruntime, on a GPU. onnxruntime and "
        "tensorrt need features.weights to name a file that `pixloc export` wrote.",
    )
    max_side_px: int = Field(
        default=0,
        ge=0,
        le=16384,
        description="Images with a longer side than this are reduced to it before the network, in "
        "pixels: smaller is faster and converges from farther, larger is more accurate. 0 takes "
        "the size that the map was built with.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network on a CPU: auto takes bfloat16, which is faster, "
        "where the CPU has instructions for it. A GPU always uses float16, and onnxruntime on a "
        "CPU float32.",
    )

    @field_validator("max_side_px")
    @classmethod
    def _check_side(cls, side_px: int) -> int:
        if 0 < side_px < 64:
            raise ValueError("0, or at least 64")
        return side_px


class ViewConfig(Section):
    """Which part of the map a frame is aligned against."""

    keyframes: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of keyframes, near the prior and sharing points, whose points are "
        "considered. More give more to choose from and take longer.",
    )
    max_points: int = Field(
        default=1500,
        ge=16,
        le=1_000_000,
        description="Number of map points that a frame is aligned against, at most. More are more "
        "accurate, and time grows in proportion.",
    )
    observations: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Number of keyframes that a point is compared with, at most, those that saw it "
        "most as the prior does first. More take longer; the published method compares with all.",
    )
    min_points: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="A camera that has fewer map points than this in view is left out; if all "
        "have, the frame fails with too_few_points.",
    )
    max_viewpoint_change: float = Field(
        default=0.4,
        ge=1e-3,
        le=10.0,
        description="A point is used if the prior views it about as its keyframe did: the angle "
        "between the two rays in rad plus the logarithm of the change of scale is at most this. "
        "Larger keeps more points, which match less well.",
    )
    cull_hidden: bool = Field(
        default=True,
        description="Leave out points that, seen from the prior, lie behind the surfaces of the "
        "keyframes. Only maps of clouds, meshes and depth images know their surfaces.",
    )
    max_distance_m: float = Field(
        default=30.0,
        ge=0.1,
        le=1e5,
        description="A prior farther than this from every keyframe, in metres, is outside of the "
        "map: the frame fails with out_of_map.",
    )
    condition_radius_m: float = Field(
        default=10.0,
        ge=0.1,
        le=1e5,
        description="On maps that were updated: the keyframe within this distance of the prior, in "
        "metres, that looks most like the image decides in which light points are compared.",
    )
    extra_view_spacing_m: float = Field(
        default=5.0,
        ge=0.1,
        le=1e5,
        description="Where the prior is vague, more views of the map are chosen along it, at "
        "least this far apart, in metres. Smaller finds more frames and takes longer.",
    )
    max_extra_views: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Number of such views, besides the one at the prior, at most.",
    )
    reselect_distance_m: float = Field(
        default=0.5,
        ge=0.0,
        le=1e5,
        description="Where alignment moved the pose by more than this, in metres, points are "
        "chosen anew and the frame is aligned once more. Larger saves time and costs accuracy.",
    )
    reselect_angle_deg: float = Field(
        default=2.0,
        ge=0.0,
        le=180.0,
        description="Where alignment turned the pose by more than this, in degrees, points are "
        "chosen anew and the frame is aligned once more.",
    )


class TilesConfig(Section):
    """Which tiles of the map are kept in memory, on the device."""

    budget_mb: float = Field(
        default=2000.0,
        ge=0.0,
        le=1e7,
        description="Memory for open tiles of the map in MB. Beyond it the tiles unused for the "
        "longest time are closed; those of the current view stay open whatever their size.",
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
        description="Tiles of a map behind a URL that are nearer to the vehicle than this, in "
        "metres, are fetched into the cache on disk before it needs them, those on the way first.",
    )
    cache_folder: str = Field(
        default="",
        description="Folder of the cache on disk for maps behind a URL, which several processes "
        "may share. Empty: pixloc/tiles below $XDG_CACHE_HOME, or ~/.cache.",
    )
    cache_mb: float = Field(
        default=10_000.0,
        ge=1.0,
        le=1e9,
        description="Size of that cache in MB. Beyond it the files unused for the longest time are "
        "removed.",
    )


class HypothesesConfig(Section):
    """How many initial poses are drawn from the prior's covariance, and which are kept."""

    max_initial_poses: int = Field(
        default=256,
        ge=1,
        le=16384,
        description="Number of initial poses that are drawn from the prior, at most; the vaguer "
        "the prior, the more are drawn. More find more frames and take longer; 1 uses the prior "
        "alone.",
    )
    convergence_radius_px: float = Field(
        default=25.0,
        ge=0.1,
        le=1e4,
        description="Mean distance, in pixels of the image given to the network, from which "
        "alignment is expected to converge. Larger draws fewer initial poses.",
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
        description="Number of points used by the coarse screening, which finds the promising ones "
        "among many initial poses.",
    )
    screening_iterations: int = Field(
        default=8, ge=1, le=1000, description="Number of steps of the coarse screening."
    )
    keep_views: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Number of views that are aligned in full after the coarse screening.",
    )
    keep_screened: int = Field(
        default=12,
        ge=1,
        le=16384,
        description="Number of poses of each view that go on after the coarse screening.",
    )
    keep_coarse: int = Field(
        default=6, ge=1, le=16384, description="Number of poses that go on after the coarse level."
    )
    keep_middle: int = Field(
        default=2, ge=1, le=16384, description="Number of poses that go on after the middle level."
    )
    keep_fine: int = Field(
        default=2,
        ge=1,
        le=16384,
        description="Number of poses that are compared after the fine level. With 1, poses that "
        "fit equally well are not noticed.",
    )
    min_agreement_share: float = Field(
        default=0.75,
        ge=0.0,
        le=1.0,
        description="Poses whose agreement (1 - cost) on the coarse or middle level is below this "
        "share of the best one's are given up. Larger is faster and may give up the right one.",
    )
    second_attempt_from: int = Field(
        default=3,
        ge=0,
        le=16384,
        description="A frame that is refused, and whose prior it takes at least this many initial "
        "poses to cover, is aligned once more: from poses that are drawn three times as close, and "
        "from the middle level on, which is not misled by what covers the image. Refused frames "
        "then take about twice as long. 0: never.",
    )
    second_attempt_poses: int = Field(
        default=256,
        ge=1,
        le=16384,
        description="Number of initial poses of the second attempt, at most, whatever "
        "max_initial_poses is. More find more frames and take longer.",
    )
    re_alignment_margin: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Results whose cost is above the least one by at most this are aligned again, "
        "with the views that suit them, before they are compared.",
    )
    alternative_step_m: float = Field(
        default=3.0,
        ge=0.1,
        le=1e4,
        description="The pose found is compared with alternative poses ahead and behind at "
        "multiples of this distance, in metres, as far as the prior allows: streets repeat.",
    )
    max_alternatives: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Number of these alternative poses, at most. 0 saves their time and gives up "
        "the protection against repeating streets.",
    )
    beyond_prior_m: float = Field(
        default=16.0,
        ge=0.0,
        le=1e4,
        description="The pose believed is compared with poses so far ahead and behind, in metres, "
        "that the prior excludes: it may be wrong, and streets repeat. 0: not compared.",
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
        description="While tracking they are compared once in this distance, in metres, and every "
        "alternative_step_m where some explain the images as well. Smaller notices a wrong prior "
        "sooner and takes longer.",
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
        """The settings with poses as close as alignment from the middle level on needs them."""
        radius_px = self.convergence_radius_px / CLOSER_ON_MIDDLE_LEVEL
        count = self.second_attempt_poses
        return self.model_copy(
            update={"convergence_radius_px": radius_px, "max_initial_poses": count}
        )


class AlignmentConfig(Section):
    """Levenberg-Marquardt of section 3.1 of the paper. Numbers are those of policy pixloc_ros."""

    policy: Literal["pixloc_ros", "reference"] = Field(
        default="pixloc_ros",
        description="Rules of the alignment: reference takes those of PixLoc as published, and "
        "ignores the other settings of this section but inlier_max_squared_residual.",
    )
    robust_scale: float = Field(
        default=0.1,
        ge=1e-6,
        le=100.0,
        description="Squared feature residual at which a point loses half of its weight. Larger "
        "trusts points that differ more.",
    )
    first_level: Literal["coarse", "middle"] = Field(
        default="coarse",
        description="Level that alignment begins on: coarse converges from farther and bears blur; "
        "middle is not misled by what covers parts of the image, and needs closer initial poses.",
    )
    iterations: tuple[Iterations, Iterations, Iterations] = Field(
        default=(20, 20, 20),
        description="Number of steps at most on the coarse, middle and fine level.",
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
        description="A point is an inlier if its squared feature residual is below this. "
        "Features that have nothing to do with each other have 2.",
    )
    min_points: int = Field(
        default=12,
        ge=6,
        le=1_000_000,
        description="A pose from which fewer points than this are in the image is given up.",
    )
    max_step_m: float = Field(
        default=5.0, ge=1e-3, le=1e4, description="Longer steps are shortened to this, in metres."
    )
    max_step_deg: float = Field(
        default=10.0,
        ge=1e-3,
        le=180.0,
        description="Steps that turn further are shortened to this, in degrees.",
    )


class AcceptanceConfig(Section):
    """When a result is believed. Anything else is a status with a reason."""

    max_wrong_probability: float = Field(
        default=0.05,
        ge=1e-9,
        le=1.0,
        description="A pose is believed if its probability of being wrong, estimated from all "
        "evidence in the image, is at most this. Larger accepts more, and more that is wrong.",
    )
    max_cost: float = Field(
        default=0.90,
        ge=0.0,
        le=1.0,
        description="Above this mean robust cost no pose is believed, whatever else speaks for it: "
        "0 is a perfect match, 1 none at all.",
    )
    min_runner_up_loss: float = Field(
        default=0.12,
        ge=0.0,
        le=10.0,
        description="A result is ambiguous if the next best other pose loses a smaller share of "
        "the agreement (1 - cost) than this. Larger refuses more where streets repeat.",
    )
    beyond_prior_margin: float = Field(
        default=0.2,
        ge=0.0,
        le=10.0,
        description="Share of the agreement by which a result and a pose that its prior excludes "
        "must differ to be told apart by the image. If the result loses more than it, the prior is "
        "contradicted: far_from_prior. If neither does, only the prior tells, and the protection "
        "level covers both.",
    )
    always_compare_halves: bool = Field(
        default=False,
        description="Compare the poses of two halves of the points also where the other evidence "
        "is enough: slower, for `pixloc verification collect` and for studies of the evidence.",
    )
    min_camera_share: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="A camera of a rig with a smaller share of inliers than this is left out, as "
        "if it were covered or frozen.",
    )
    max_condition: float = Field(
        default=1e5,
        ge=1.0,
        le=1e15,
        description="A result is refused with ill_conditioned if the condition number of its "
        "scaled Hessian is above this: some direction is then hardly determined.",
    )
    max_sigma_from_prior: float = Field(
        default=5.0,
        ge=0.0,
        le=1e6,
        description="A result farther than this from the prior, in standard deviations of both, is "
        "refused with far_from_prior. Larger accepts more with a prior that is off.",
    )


class CovarianceConfig(Section):
    """The covariance on maps without a calibration of their own, see docs/lab/covariance.md."""

    from_map: bool = Field(
        default=True,
        description="Use the calibration in the map, made by `pixloc map calibrate`, if it has "
        "one, instead of the following numbers.",
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
        "added.",
    )
    floor_deg: float = Field(
        default=0.02,
        ge=0.0,
        le=180.0,
        description="Standard deviation of the map itself about each axis, in degrees, which is "
        "added.",
    )


class RetrievalConfig(Section):
    """Where to search for a frame that has no prior: where keyframes look like it."""

    enabled: bool = Field(
        default=True,
        description="Search the whole map for a frame if no odometry, GNSS or initial pose says "
        "where it is.",
    )
    candidates: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Number of keyframes that look most like the frame, from which places are "
        "made.",
    )
    places: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of distinct places among them that are tried. More find more frames "
        "and take longer.",
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
        description="Standard deviation per axis, in metres, with which the vehicle is expected "
        "off the keyframes' way; along it their spacing is added.",
    )
    sigma_deg: float = Field(
        default=3.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation per axis, in degrees, with which the vehicle is expected "
        "to be turned from the keyframes.",
    )
