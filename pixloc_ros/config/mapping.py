"""Settings for building a map from a recorded drive (`pixloc map build --bag`)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pixloc_ros.config.section import Section


class MappingConfig(Section):
    """Selection of keyframes, adjustment, and criteria for a good map."""

    keyframe_spacing_m: float = Field(
        default=1.0,
        ge=0.01,
        le=1000.0,
        description="Distance between keyframes, in metres, if the drive has odometry.",
    )
    keyframe_turn_deg: float = Field(
        default=10.0,
        ge=0.1,
        le=180.0,
        description="Angle between keyframes, in degrees, if the vehicle turns on the spot.",
    )
    keyframe_flow_share: float = Field(
        default=0.02,
        ge=0.001,
        le=1.0,
        description="Without odometry: image motion between keyframes, as a share of the image "
        "width.",
    )
    neighbours: int = Field(
        default=8,
        ge=2,
        le=100,
        description="Number of keyframes near in space and time that each keyframe is matched "
        "with.",
    )
    places: int = Field(
        default=5,
        ge=0,
        le=100,
        description="Number of similar-looking keyframes that each keyframe is matched with; they "
        "close loops where odometry has drifted. 0: none.",
    )
    rounds: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Number of rounds of triangulating points and adjusting poses.",
    )
    chunk_keyframes: int = Field(
        default=400,
        ge=6,
        le=1_000_000,
        description="A longer drive with odometry is reconstructed in chunks of at most this many "
        "keyframes, which limits memory. Neighbouring chunks share an eighth of their keyframes, "
        "or mapping.neighbours if that is more.",
    )
    position_sigma_m: float = Field(
        default=0.1,
        ge=0.001,
        le=1000.0,
        description="Standard deviation per axis, in metres, that bundle adjustment assumes for "
        "the smoothed trajectory of odometry and fixes.",
    )
    fix_correlation_s: float = Field(
        default=10.0,
        ge=0.0,
        le=3600.0,
        description="Time, in seconds, within which errors of GNSS fixes are alike: all fixes "
        "within it count as one.",
    )
    fix_delay_sigma_s: float = Field(
        default=0.1,
        ge=0.0,
        le=10.0,
        description="Standard deviation, in seconds, of the unknown delay of fixes, which is "
        "estimated; 0: stamps are taken as they are.",
    )
    odometry_scale_sigma: float = Field(
        default=0.02,
        ge=0.0,
        le=1.0,
        description="Standard deviation of the unknown scale factor of odometry, which is "
        "estimated if there are fixes.",
    )
    refine_intrinsics: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="Whether bundle adjustment changes the calibration. auto: if that lowers the "
        "reprojection error by a fifth or more.",
    )
    min_placed_share: float = Field(
        default=0.9,
        ge=0.0,
        le=1.0,
        description="Minimum share of keyframes that are placed in a good map.",
    )
    max_error_px: float = Field(
        default=1.5,
        ge=0.1,
        le=100.0,
        description="Maximum mean reprojection error of a good map, in pixels.",
    )
    min_track_length: float = Field(
        default=3.0,
        ge=2.0,
        le=100.0,
        description="Minimum mean number of keyframes per point of a good map.",
    )
    max_fix_error_m: float = Field(
        default=5.0,
        ge=0.01,
        le=1e4,
        description="Maximum median horizontal distance, in metres, between the fixes and a good "
        "map's trajectory.",
    )
    max_odometry_error_share: float = Field(
        default=0.05,
        ge=0.001,
        le=10.0,
        description="Maximum difference from odometry over ten keyframes, as a share of the "
        "distance, for nine tenths of a good map.",
    )
    weak_points: int = Field(
        default=60,
        ge=1,
        le=100_000,
        description="A keyframe that observes fewer points than this is weak.",
    )
    weak_neighbours: int = Field(
        default=2,
        ge=1,
        le=100,
        description="A keyframe that shares points with fewer others than this is weak.",
    )
    max_weak_share: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="Maximum share of weak keyframes in a good map.",
    )

    @model_validator(mode="after")
    def _check_chunk_size(self) -> Self:
        if self.chunk_keyframes < 3 * self.neighbours:
            raise ValueError("chunk_keyframes must be at least three times neighbours")
        return self
