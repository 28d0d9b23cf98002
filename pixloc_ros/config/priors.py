"""Settings for the vehicle's pose between frames: odometry, GNSS, external poses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pixloc_ros.config.section import Section

Offset = Annotated[float, Field(ge=-1000.0, le=1000.0)]


class PriorsConfig(Section):
    """Odometry, GNSS and initial poses."""

    odometry_position_sigma_share: float = Field(
        default=0.02,
        ge=0.0,
        le=10.0,
        description="Standard deviation of the odometry's position as a share of the distance "
        "driven. Larger widens priors, so that more initial poses are tried.",
    )
    odometry_heading_sigma_deg_per_m: float = Field(
        default=0.05,
        ge=0.0,
        le=360.0,
        description="Standard deviation of the odometry's heading, in degrees per metre driven.",
    )
    odometry_min_sigma_m: float = Field(
        default=0.05,
        ge=0.0,
        le=1e4,
        description="Minimum standard deviation of a prediction per axis, in metres, however short "
        "it is.",
    )
    odometry_min_sigma_deg: float = Field(
        default=0.1,
        ge=0.0,
        le=180.0,
        description="Minimum standard deviation of a prediction per axis, in degrees, however "
        "short it is.",
    )
    odometry_max_gap_s: float = Field(
        default=1.0,
        ge=1e-3,
        le=3600.0,
        description="A gap between two odometry messages longer than this, in seconds, breaks the "
        "odometry: the motion across it is unknown.",
    )
    odometry_max_extrapolation_s: float = Field(
        default=0.2,
        ge=0.0,
        le=60.0,
        description="Time beyond the newest odometry message, in seconds, for which its motion is "
        "assumed to continue.",
    )
    odometry_max_speed_mps: float = Field(
        default=70.0,
        ge=0.01,
        le=1e4,
        description="Odometry or GNSS that moves faster than this, in m/s, has jumped.",
    )
    odometry_wait_s: float = Field(
        default=0.1,
        ge=0.0,
        le=10.0,
        description="Maximum time, in seconds, that a frame waits for odometry at or after its "
        "stamp. Larger makes use of late odometry but may delay frames.",
    )
    motion_sigma_mps: float = Field(
        default=3.0,
        ge=0.0,
        le=1e4,
        description="Standard deviation of unknown motion while there is no odometry, in m/s.",
    )
    motion_sigma_degps: float = Field(
        default=5.0,
        ge=0.0,
        le=1e4,
        description="Standard deviation of unknown turning while there is no odometry, in degrees "
        "per second.",
    )
    gnss_max_age_s: float = Field(
        default=1.0,
        ge=1e-3,
        le=3600.0,
        description="A GNSS fix older than this, in seconds, is not used for a frame.",
    )
    gnss_min_sigma_m: float = Field(
        default=1.0,
        ge=1e-3,
        le=1e5,
        description="Minimum standard deviation of a fix per axis, in metres, however accurate its "
        "receiver claims to be: receivers are optimistic.",
    )
    gnss_max_sigma_m: float = Field(
        default=30.0,
        ge=1e-3,
        le=1e5,
        description="A fix whose horizontal standard deviation is larger than this, in metres, is "
        "not used.",
    )
    gnss_default_sigma_m: float = Field(
        default=5.0,
        ge=1e-3,
        le=1e5,
        description="Standard deviation per axis, in metres, of fixes whose message has no "
        "covariance.",
    )
    gnss_height_sigma_m: float = Field(
        default=0.5,
        ge=1e-3,
        le=1e4,
        description="Standard deviation, in metres, of the height, which is taken from the nearest "
        "keyframe, not from the fix.",
    )
    gnss_tilt_sigma_deg: float = Field(
        default=1.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation, in degrees, of roll and pitch, which are taken from the "
        "nearest keyframe.",
    )
    gnss_heading_sigma_deg: float = Field(
        default=8.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation, in degrees, of a heading taken from the nearest keyframe. "
        "It is used until the motion of the fixes determines the heading better.",
    )
    gnss_antenna_m: tuple[Offset, Offset, Offset] = Field(
        default=(0.0, 0.0, 0.0),
        description="Position x, y, z of the antenna in the vehicle's frame, in metres. All zero: "
        "/tf_static tells where the frame of the fixes is.",
    )
    jump_sigma: float = Field(
        default=5.0,
        ge=0.0,
        le=1e6,
        description="A pose farther than this from the predicted one, in standard deviations, is a "
        "jump; it remains unconfirmed until other frames agree with it.",
    )
    jump_frames: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="Number of frames that must agree on a jump before it is accepted; 1 accepts "
        "any jump at once.",
    )
    jump_window: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of latest frames among which those that agree on a jump are counted.",
    )
    max_coast_s: float = Field(
        default=5.0,
        ge=0.0,
        le=3600.0,
        description="Maximum time without an accepted pose, in seconds, for which odometry carries "
        "the last one on as the prior. After that the vehicle is lost.",
    )
    fallback_after_misses: int = Field(
        default=3,
        ge=1,
        le=100_000,
        description="Number of successive frames without an accepted pose after which GNSS, or a "
        "search of the map, is tried in turn with the prediction.",
    )
    last_pose_sigma_m: float = Field(
        default=2.0,
        ge=1e-3,
        le=1e5,
        description="Standard deviation per axis, in metres, by which the vehicle may have moved "
        "since the last run ended.",
    )
    last_pose_sigma_deg: float = Field(
        default=5.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation per axis, in degrees, by which the vehicle may have turned "
        "since the last run ended.",
    )
