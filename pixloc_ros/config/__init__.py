"""Every default of the package, in one place.

CLI options, YAML files and ROS parameters derive from it. ROS parameter names are the dotted paths
of these fields: `alignment.robust_scale`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from pixloc_ros.common import foreign_files
from pixloc_ros.config.acceptance import AcceptanceConfig, CovarianceConfig
from pixloc_ros.config.alignment import AlignmentConfig, HypothesesConfig
from pixloc_ros.config.camera import CameraConfig
from pixloc_ros.config.features import FeaturesConfig
from pixloc_ros.config.maps import RetrievalConfig, TilesConfig, ViewConfig
from pixloc_ros.config.node import NodeConfig
from pixloc_ros.config.priors import PriorsConfig
from pixloc_ros.config.section import Section, suggestion
from pixloc_ros.errors import ConfigError

__all__ = [
    "LIVE",
    "RENAMED",
    "REPLACED",
    "AcceptanceConfig",
    "AlignmentConfig",
    "CameraConfig",
    "Config",
    "CovarianceConfig",
    "FeaturesConfig",
    "HypothesesConfig",
    "NodeConfig",
    "PriorsConfig",
    "RetrievalConfig",
    "Section",
    "Setting",
    "TilesConfig",
    "ViewConfig",
    "flatten",
    "from_flat",
    "load",
    "read_yaml",
    "setting",
    "suggestion",
]


class Config(Section):
    """The whole configuration of a localizer, live or on recorded data."""

    map: str = Field(default="", description="Folder of the map, or its URL.")
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Device to compute on: cpu, cuda, or cuda:N for one of several.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Number of CPU threads of the network; 0: as many as there are cores. If other "
        "programs are busy, fewer threads are faster. The alignment uses one thread.",
    )
    camera: CameraConfig = CameraConfig()
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

    @field_validator("map", mode="before")
    @classmethod
    def _as_text(cls, location: object) -> object:
        return os.fspath(location) if isinstance(location, os.PathLike) else location


# Names, and prefixes of names, of ROS parameters that can be set while the node is running.
LIVE = (
    "acceptance.",
    "camera.",
    "priors.",
    "node.diagnostics_rate_hz",
    "node.tf_rate_hz",
    "node.tf_smoothing_",
    "node.transform_tolerance_s",
)


# Renamed settings: old name to new name.
RENAMED = {
    "view.max_unlikeness": "view.max_viewpoint_change",
    "view.anchor_spacing_m": "view.extra_view_spacing_m",
    "view.max_anchors": "view.max_extra_views",
    "view.renew_m": "view.reselect_distance_m",
    "view.renew_deg": "view.reselect_angle_deg",
    "hypotheses.reach_px": "hypotheses.convergence_radius_px",
    "hypotheses.scout_points": "hypotheses.screening_points",
    "hypotheses.scout_iterations": "hypotheses.screening_iterations",
    "hypotheses.keep_looks": "hypotheses.keep_views",
    "hypotheses.keep_scout": "hypotheses.keep_screened",
    "hypotheses.rival_step_m": "hypotheses.alternative_step_m",
    "hypotheses.max_rivals": "hypotheses.max_alternatives",
    "hypotheses.merge_m": "hypotheses.same_pose_m",
    "hypotheses.merge_deg": "hypotheses.same_pose_deg",
    "alignment.inlier_squared": "alignment.inlier_max_squared_residual",
    "priors.doubt_frames": "priors.fallback_after_misses",
    "node.freeze_motion_m": "node.frozen_image_distance_m",
    "hypotheses.max_count": "hypotheses.max_initial_poses",
    "alignment.stop_px": "alignment.stop_motion_px",
    "priors.odometry_sigma_m": "priors.odometry_min_sigma_m",
    "priors.odometry_sigma_deg": "priors.odometry_min_sigma_deg",
    "node.camera_tolerance_s": "node.camera_sync_tolerance_s",
    "node.map_points_max": "node.max_map_points",
    "node.path_max_poses": "node.max_path_poses",
}


# Removed settings without an exact replacement, and the setting that does their work now.
REPLACED = {
    "acceptance.min_inlier_share": "acceptance.max_wrong_probability",
    "acceptance.ambiguity_margin": "acceptance.min_runner_up_loss",
}


def flatten(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of all fields, in order."""
    for name, value in config:
        if isinstance(value, BaseModel):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True, slots=True)
class Setting:
    """Meaning and range of a setting, for help texts and ROS parameter descriptors."""

    description: str
    low: float | None = None  # of a number, or of each number of a sequence
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """Range or choices in words; empty for free text and switches."""
        if self.low is not None:
            return f"{self.low:.7g} to {self.high:.7g}"
        return ", ".join(self.choices)


def setting(dotted_name: str) -> Setting:
    """Return the description and range of a setting."""
    model: type[BaseModel] = Config
    *sections, leaf = dotted_name.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # type: ignore[assignment]
    schema = model.model_json_schema()["properties"][leaf]
    number = schema.get("prefixItems", [schema])[0]
    return Setting(
        schema["description"],
        number.get("minimum"),
        number.get("maximum"),
        tuple(schema.get("enum", ())),
    )


def from_flat(values: Mapping[str, Any]) -> Config:
    """Build the configuration from dotted names.

    Raises ConfigError for an unknown name (suggesting the nearest) or a value out of range.
    """
    known = dict(flatten(Config()))
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name in RENAMED:
            raise ConfigError(f"parameter '{name}' is now called '{RENAMED[name]}': rename it")
        if name in REPLACED:
            raise ConfigError(
                f"parameter '{name}' was removed: '{REPLACED[name]}' replaces it, in other units; "
                f"delete it"
            )
        if name.startswith("mapping."):
            raise ConfigError(
                f"'{name}' is for `pixloc map build --bag` only: give it as --set {name}=VALUE"
            )
        if name not in known:
            raise ConfigError(f"unknown parameter '{name}'{suggestion(name, known)}")
        *sections, leaf = name.split(".")
        target = nested
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    return Config(**nested)


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file: either nested keys, or the node's `ros__parameters` file.

    Raises ConfigError for an unreadable file, unknown keys or bad values.
    """
    flat = dict(flatten_mapping(_unwrap_ros(read_yaml(path))))
    return from_flat({**flat, **(overrides or {})})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ConfigError if there is none."""
    content = foreign_files.read_yaml(path, ConfigError) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"configuration {path} is not a mapping of names to values")
    return content


def _unwrap_ros(content: dict[str, Any]) -> dict[str, Any]:
    for value in content.values():
        if isinstance(value, dict) and "ros__parameters" in value:
            parameters = value["ros__parameters"] or {}
            if not isinstance(parameters, dict):
                raise ConfigError("'ros__parameters' is not a mapping of names to values")
            return {k: v for k, v in parameters.items() if k != "use_sim_time"}
    return content


def flatten_mapping(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping, in order."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flatten_mapping(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
