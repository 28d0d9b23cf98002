"""Settings of the method as published; `config/paper/` has those of each benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from pixloc_ros.config import read_yaml
from pixloc_ros.config.section import Section
from pixloc_ros.errors import ConfigError


class PublishedConfig(Section):
    """PixLoc's retrieval and pose refinement, by the names of this package."""

    weights: str = Field(default="compact_seed", description="packaged weights or a checkpoint")
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")
    precision: Literal["float32", "float64"] = Field(
        default="float32", description="number format of network, features and poses"
    )
    max_side_px: int = Field(default=1024, ge=64, description="larger images are reduced to this")
    image_pyramid: tuple[int, ...] = Field(
        default=(4, 1), min_length=1, description="the image is reduced by each of these in turn"
    )
    levels: tuple[int, ...] = Field(
        default=(0, 1, 2), min_length=1, description="feature levels used, 0 is the coarsest"
    )
    iterations: int = Field(default=100, ge=1, description="maximum number of steps on each level")
    border_px: int = Field(
        default=2, ge=1, description="width of the border of each level in which points are ignored"
    )
    references: int = Field(
        default=5, ge=1, description="number of reference images, the best ones"
    )
    covisible_only: bool = Field(
        default=False, description="use only the largest group of these that shares points"
    )
    mean_initial_pose: bool = Field(
        default=False, description="start at the references' mean pose, weighted by similarity"
    )
    points: Literal["all", "inliers", "matched"] = Field(
        default="all",
        description="which of the references' points to use: all, or those in hloc's log",
    )
    min_track_length: int = Field(
        default=3, ge=1, description="minimum number of images that observe a point"
    )
    average_observations: bool = Field(
        default=False, description="use one mean feature per point, not one per reference"
    )
    min_points: int = Field(default=10, ge=1, description="fewer points are not worth a refinement")
    min_inliers: int = Field(
        default=10,
        ge=0,
        description="minimum number of inliers in hloc's log for a pose to be refined",
    )


def load_published(path: str | Path, device: str | None = None) -> PublishedConfig:
    """Read a YAML file. Raises ConfigError for unknown names and values out of range."""
    content = read_yaml(path)
    if device is not None:
        content["device"] = device
    try:
        return PublishedConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: '{name}': {first['msg']}") from None
