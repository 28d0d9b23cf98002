"""Where the vehicle is believed to be between frames: odometry, GNSS, stated poses."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from pixloc_ros.config.section import Section


class PriorsConfig(Section):
    """Odometry, GNSS and initial poses."""

    odometry_position_sigma_share: float = Field(
        default=0.02, ge=0, description="of the distance driven"
    )
    odometry_heading_sigma_deg_per_m: float = Field(
        default=0.05, ge=0, description="per metre driven"
    )
    odometry_sigma_m: float = Field(default=0.05, ge=0, description="floor per prediction")
    odometry_sigma_deg: float = Field(default=0.1, ge=0, description="floor per prediction")
    odometry_max_gap_s: float = Field(
        default=1.0, gt=0, description="longer gaps break the odometry"
    )
    odometry_max_extrapolation_s: float = Field(
        default=0.2, ge=0, description="beyond the newest message"
    )
    odometry_max_speed_mps: float = Field(
        default=70.0, gt=0, description="faster jumps break the odometry"
    )
    odometry_wait_s: float = Field(
        default=0.1, ge=0, description="a frame waits this long for odometry"
    )
    motion_sigma_mps: float = Field(
        default=3.0, ge=0, description="drift per second without odometry"
    )
    motion_sigma_degps: float = Field(
        default=5.0, ge=0, description="turn per second without odometry"
    )
    gnss_max_age_s: float = Field(default=1.0, gt=0, description="older fixes are not used")
    gnss_min_sigma_m: float = Field(default=1.0, gt=0, description="receivers are optimistic")
    gnss_max_sigma_m: float = Field(default=30.0, gt=0, description="vaguer fixes are not used")
    gnss_default_sigma_m: float = Field(
        default=5.0, gt=0, description="of fixes without covariance"
    )
    gnss_height_sigma_m: float = Field(
        default=0.5, gt=0, description="height borrowed from the map"
    )
    gnss_tilt_sigma_deg: float = Field(
        default=1.0, gt=0, description="roll and pitch borrowed likewise"
    )
    gnss_heading_sigma_deg: float = Field(
        default=8.0, gt=0, description="heading borrowed from the map, until motion tells it better"
    )
    gnss_antenna_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = Field(
        default=(0.0, 0.0, 0.0),
        description="antenna in the base frame; all zero: where /tf_static puts the fixes' frame",
    )
    jump_sigma: float = Field(
        default=5.0, gt=0, description="farther from the predicted pose is a jump"
    )
    jump_frames: int = Field(default=2, ge=1, description="frames that must agree on one; 1: any")
    jump_window: int = Field(default=3, ge=1, description="among so many of the last frames")
    max_coast_s: float = Field(default=5.0, ge=0, description="prediction without an accepted pose")
    fallback_after_misses: int = Field(
        default=3, ge=1, description="misses in a row until GNSS, or a search, gets its turn"
    )
    last_pose_sigma_m: float = Field(
        default=2.0, gt=0, description="moved since the last run, per axis"
    )
    last_pose_sigma_deg: float = Field(
        default=5.0, gt=0, description="turned since the last run, per axis"
    )
