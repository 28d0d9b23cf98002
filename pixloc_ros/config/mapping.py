"""How a map is made of a recorded drive (`pixloc map build --bag`)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pixloc_ros.config.section import Section


class MappingConfig(Section):
    """Choice of keyframes, adjustment, and when a map is good."""

    keyframe_spacing_m: float = Field(
        default=1.0,
        ge=0.01,
        le=1000.0,
        description="Distance between keyframes, in metres, where the drive has odometry.",
    )
    keyframe_turn_deg: float = Field(
        default=10.0,
        ge=0.1,
        le=180.0,
        description="Angle between keyframes, in degrees, where the vehicle turns on the spot.",
    )
    keyframe_flow_share: float = Field(
        default=0.02,
        ge=0.001,
        le=1.0,
        description="Without odometry: motion in the image between keyframes, as a share of its "
        "width.",
    )
    neighbours: int = Field(
        default=8,
        ge=2,
        le=100,
        description="Number of keyframes that each is matched with, by distance and by time.",
    )
    places: int = Field(
        default=5,
        ge=0,
        le=100,
        description="Number of keyframes that each is matched with because they look alike; they "
        "close loops where odometry has drifted. 0 looks for none.",
    )
    rounds: int = Field(
        default=3,
        ge=1,
        le=20,
        description="How often points are triangulated and poses adjusted.",
    )
    chunk_keyframes: int = Field(
        default=400,
        ge=6,
        le=1_000_000,
        description="Longer drives with odometry are placed in chunks of at most so many "
        "keyframes, which share an eighth of them, or mapping.neighbours; that bounds the memory.",
    )
    position_sigma_m: float = Field(
        default=0.1,
        ge=0.001,
        le=1000.0,
        description="Standard deviation per axis, in metres, by which bundle adjustment takes the "
        "smoothed trajectory of odometry and fixes to be off.",
    )
    fix_correlation_s: float = Field(
        default=10.0,
        ge=0.0,
        le=3600.0,
        description="Time, in seconds, within which errors of GNSS fixes are alike: so many fixes "
        "count as one.",
    )
    fix_delay_sigma_s: float = Field(
        default=0.1,
        ge=0.0,
        le=10.0,
        description="Standard deviation, in seconds, of the unknown delay of fixes, which is "
        "estimated; 0 takes stamps as they are.",
    )
    odometry_scale_sigma: float = Field(
        default=0.02,
        ge=0.0,
        le=1.0,
        description="Standard deviation of the unknown factor of odometry's distances, which is "
        "estimated where there are fixes.",
    )
    refine_intrinsics: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="Whether bundle adjustment changes the calibration: auto does where the "
        "reprojection error falls by a fifth or more for it.",
    )
    min_placed_share: float = Field(
        default=0.9,
        ge=0.0,
        le=1.0,
        description="Share of the keyframes that must be placed for the map to be good.",
    )
    max_error_px: float = Field(
        default=1.5,
        ge=0.1,
        le=100.0,
        description="Mean reprojection error, in pixels, that a good map is below.",
    )
    min_track_length: float = Field(
        default=3.0,
        ge=2.0,
        le=100.0,
        description="Number of keyframes that see a point of a good map, on average.",
    )
    max_fix_error_m: float = Field(
        default=5.0,
        ge=0.01,
        le=1e4,
        description="Median horizontal distance, in metres, of fixes from a good map's trajectory.",
    )
    max_odometry_error_share: float = Field(
        default=0.05,
        ge=0.001,
        le=10.0,
        description="Difference from odometry over ten keyframes, as a share of the way, that nine "
        "tenths of a good map are below.",
    )
    weak_points: int = Field(
        default=60,
        ge=1,
        le=100_000,
        description="A keyframe that sees fewer points than this is weak.",
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
        description="Share of weak keyframes that a good map is below.",
    )

    @model_validator(mode="after")
    def _chunks_are_longer_than_what_they_share(self) -> Self:
        if self.chunk_keyframes < 3 * self.neighbours:
            raise ValueError("chunk_keyframes must be at least three times neighbours")
        return self
