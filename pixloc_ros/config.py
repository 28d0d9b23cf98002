"""Every default of the package, once. CLI options, YAML files and ROS parameters derive from here.

ROS parameter names are the dotted paths of these fields: `alignment.robust_scale`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from pixloc_ros.errors import ConfigError


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeaturesConfig(Section):
    """The network and the size of the image it sees."""

    weights: str = Field(default="compact_seed", description="name of packaged weights, or a path")
    max_side_px: int = Field(
        default=1248, ge=64, description="larger images are reduced to this side"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the network on a CPU; auto: bfloat16 where the CPU has it",
    )


class ViewConfig(Section):
    """Which part of the map a frame is aligned against."""

    keyframes: int = Field(default=3, ge=1, description="reference images, nearest and covisible")
    max_points: int = Field(default=1500, ge=16, description="points aligned per frame")
    min_points: int = Field(default=50, ge=1, description="a view of fewer is not worth aligning")
    max_unlikeness: float = Field(
        default=0.4, gt=0, description="of a point now and when mapped: angle in rad + log of scale"
    )
    cull_hidden: bool = Field(
        default=True, description="leave out what the prior has behind surfaces, in maps of clouds"
    )
    max_distance_m: float = Field(
        default=30.0, gt=0, description="beyond the nearest keyframe: no map"
    )
    anchor_spacing_m: float = Field(default=5.0, gt=0, description="a view serves so far around it")
    max_anchors: int = Field(default=8, ge=0, description="more views where the prior is vague")
    renew_m: float = Field(default=0.5, ge=0, description="chosen anew where the pose moved more")
    renew_deg: float = Field(default=2.0, ge=0, description="chosen anew where it turned more")


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
    reach_px: float = Field(
        default=40.0, gt=0, description="mean image motion that one start can mend"
    )
    coverage_sigma: float = Field(default=2.0, gt=0, description="sigmas of the prior to cover")
    scout_points: int = Field(default=400, ge=16, description="points of the first, quick look")
    scout_iterations: int = Field(default=8, ge=1, description="steps of the first, quick look")
    keep_looks: int = Field(default=4, ge=1, description="views kept after the quick look")
    keep_scout: int = Field(default=12, ge=1, description="starts kept after the quick look")
    keep_coarse: int = Field(default=6, ge=1, description="kept after the coarse level")
    keep_middle: int = Field(default=2, ge=1, description="kept after the middle level")
    keep_fine: int = Field(default=2, ge=1, description="compared at the end")
    merge_m: float = Field(default=0.3, gt=0, description="results nearer than this are the same")
    merge_deg: float = Field(default=1.0, gt=0, description="results nearer than this are the same")


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
    inlier_squared: float = Field(default=0.3, gt=0, description="|r|^2 of an inlier; unrelated: 2")
    min_points: int = Field(default=12, ge=6, description="fewer points in view fail a hypothesis")
    max_step_m: float = Field(default=5.0, gt=0, description="longer steps are shortened")
    max_step_deg: float = Field(default=10.0, gt=0, description="larger rotations are shortened")


class AcceptanceConfig(Section):
    """When a result is believed. Anything else is a status with a reason."""

    max_cost: float = Field(
        default=0.80, gt=0, description="mean robust cost, 0 perfect, 1 all outliers"
    )
    min_inlier_share: float = Field(
        default=0.25, ge=0, le=1, description="share of points that agree"
    )
    min_camera_share: float = Field(
        default=0.05, ge=0, le=1, description="a camera of a rig with fewer is left out"
    )
    max_condition: float = Field(default=1e5, gt=1, description="of the scaled Hessian")
    max_sigma_from_prior: float = Field(
        default=5.0, gt=0, description="Mahalanobis distance of the result"
    )
    ambiguity_margin: float = Field(
        default=0.02, ge=0, description="cost by which the best must win"
    )


class CovarianceConfig(Section):
    """The covariance on maps without a calibration of their own, see docs/covariance.md."""

    from_map: bool = Field(default=True, description="a calibration in the map wins over these")
    scale: float = Field(default=2.0, gt=0, description="factor on the aligner's covariance")
    floor_m: float = Field(default=0.006, ge=0, description="sigma of the map itself, per axis")
    floor_deg: float = Field(default=0.02, ge=0, description="sigma of the map itself, per axis")


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
    doubt_frames: int = Field(
        default=3, ge=1, description="misses in a row until GNSS, or a search, gets its turn"
    )
    last_pose_sigma_m: float = Field(
        default=2.0, gt=0, description="moved since the last run, per axis"
    )
    last_pose_sigma_deg: float = Field(
        default=5.0, gt=0, description="turned since the last run, per axis"
    )


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


class NodeConfig(Section):
    """The ROS side: frames, topics, rates."""

    map_frame: str = Field(default="map", description="frame of the map")
    odom_frame: str = Field(default="odom", description="frame of the odometry")
    base_frame: str = Field(default="base_link", description="frame of the vehicle")
    odom_source: Literal["topic", "tf"] = Field(
        default="topic", description="odometry from the topic odom, or odom to base_link of /tf"
    )
    cameras: str = Field(
        default="",
        pattern=r"^(\w+(,\w+)*)?$",
        description="of a rig: names, as front,left, on front/image ...; empty: one, on image",
    )
    camera_tolerance_s: float = Field(
        default=0.03, ge=0, description="images of a rig so close in time are taken together"
    )
    freeze_motion_m: float = Field(
        default=0.5, gt=0, description="one image unchanged over so much motion is frozen"
    )
    camera_frame: str = Field(default="", description="optical frame; empty: from the image header")
    tf_mode: Literal["none", "map_odom", "map_base"] = Field(
        default="map_odom", description="what to send"
    )
    tf_rate_hz: float = Field(
        default=20.0, gt=0, description="the transform is re-sent at this rate"
    )
    transform_tolerance_s: float = Field(
        default=0.1, ge=0, description="post-dating of the transform"
    )
    tf_smoothing_s: float = Field(
        default=0.0, ge=0, description="time constant of corrections of map to odom; 0: at once"
    )
    tf_smoothing_max_m: float = Field(
        default=1.0, gt=0, description="larger corrections of the vehicle are made at once"
    )
    tf_smoothing_max_deg: float = Field(
        default=5.0, gt=0, description="larger corrections of the vehicle are made at once"
    )
    map_points_max: int = Field(default=200_000, ge=1, description="points of ~/map_points")
    path_max_poses: int = Field(default=1000, ge=1, description="length of ~/path")
    path_spacing_m: float = Field(default=0.5, ge=0, description="between the poses of ~/path")
    last_pose_file: str = Field(
        default="last_pose.json",
        description="kept for the next start, below $ROS_HOME/NODE if relative; empty: nowhere",
    )
    map_root: str = Field(default="", description="~/load_map loads maps below this folder only")
    autostart: bool = Field(default=True, description="configure and activate by itself")
    compressed: bool = Field(
        default=False, description="wait for image/compressed; else for what is published"
    )
    diagnostics_rate_hz: float = Field(default=1.0, gt=0, description="rate of /diagnostics")
    identity_extrinsics: bool = Field(
        default=False, description="camera at base_link, looking forward"
    )
    calibration_wait_s: float = Field(
        default=0.5, ge=0, description="a frame waits so long for camera_info and /tf_static"
    )


    @property
    def camera_names(self) -> tuple[str, ...]:
        """Of a rig; one empty name for a camera that is alone."""
        return tuple(self.cameras.split(","))


class Config(Section):
    """The whole configuration of a localizer, live or over files."""

    map: str = Field(default="", description="folder of the map")
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: as many as there are cores")
    features: FeaturesConfig = FeaturesConfig()
    view: ViewConfig = ViewConfig()
    tiles: TilesConfig = TilesConfig()
    hypotheses: HypothesesConfig = HypothesesConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    acceptance: AcceptanceConfig = AcceptanceConfig()
    covariance: CovarianceConfig = CovarianceConfig()
    priors: PriorsConfig = PriorsConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    node: NodeConfig = NodeConfig()


# Names, and beginnings of names, of ROS parameters that can be set while the node works.
LIVE = (
    "acceptance.",
    "priors.",
    "node.diagnostics_rate_hz",
    "node.tf_rate_hz",
    "node.tf_smoothing_",
    "node.transform_tolerance_s",
)


def flatten(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all fields, in order."""
    for name, value in config:
        if isinstance(value, BaseModel):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def describe(dotted_name: str) -> str:
    """The description of a field, for help texts and ROS parameter descriptors."""
    model: type[BaseModel] = Config
    *sections, leaf = dotted_name.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # type: ignore[assignment]
    return model.model_fields[leaf].description or ""


def from_flat(values: Mapping[str, Any]) -> Config:
    """Build the configuration from dotted names.

    Raises ConfigError for an unknown name (the nearest one is named) or a value out of range.
    """
    known = dict(flatten(Config()))
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown parameter '{name}'{_nearest(name, known)}")
        *sections, leaf = name.split(".")
        target = nested
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    return _validated(nested)


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file: plain nested keys, or the node's `ros__parameters` file.

    Raises ConfigError for a file that cannot be read and for unknown keys or bad values.
    """
    flat = dict(_flatten_mapping(_unwrap_ros(read_yaml(path))))
    return from_flat({**flat, **(overrides or {})})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError where there is none."""
    try:
        content = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read configuration {path}: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"configuration {path} is not a mapping of names to values")
    return content


def _unwrap_ros(content: dict[str, Any]) -> dict[str, Any]:
    for value in content.values():
        if isinstance(value, dict) and "ros__parameters" in value:
            return {k: v for k, v in value["ros__parameters"].items() if k != "use_sim_time"}
    return content


def _flatten_mapping(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten_mapping(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _validated(nested: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"parameter '{name}' = {first['input']!r}: {first['msg']}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    leaves = {key.rsplit(".", 1)[-1]: key for key in known}
    match = difflib.get_close_matches(name, known, n=1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1)
    ]
    return f": did you mean '{match[0]}'?" if match else "; `pixloc config` lists all of them"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
