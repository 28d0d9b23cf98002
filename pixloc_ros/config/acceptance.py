"""Which poses are accepted, and with which covariance."""

from __future__ import annotations

from pydantic import Field

from pixloc_ros.config.section import Section


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
        "only the prior tells them apart, and the protection level covers both; it also covers the "
        "next best pose that the prior allows, if that loses less than this.",
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
