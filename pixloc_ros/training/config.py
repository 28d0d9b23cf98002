"""The settings of a training run: every default, in one place. They alone determine a run."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from pixloc_ros.config import Section, read_yaml
from pixloc_ros.errors import ConfigError
from pixloc_ros.training.data_config import AugmentationConfig, Shares, SourceConfig

PerLevel = Annotated[tuple[float, float, float], Field(description="coarse to fine")]


class ModelConfig(Section):
    """Which network is trained, and from which weights."""

    architecture: str = Field(default="compact", description="name of a network of the package")
    init: str = Field(
        default="imagenet",
        description="imagenet (encoder only), random, or weights by name or path",
    )
    imagenet_file: Path | None = Field(
        default=None,
        description="checkpoint of VGG16 or VGG19 by torchvision, which those networks need",
    )
    freeze_norms: bool = Field(
        default=False, description="keep the statistics of batch norms: for batches below about 8"
    )


class StartsConfig(Section):
    """Initial poses of the alignment in training."""

    at: Literal["random", "reference", "on_the_way"] = Field(
        default="random",
        description="random: displaced from the truth; reference: the reference image's pose; "
        "on_the_way: between the reference's pose and the truth",
    )
    on_the_way: Shares = Field(
        default=(0.75, 1.0),
        description="share of the way from the reference to the truth, drawn uniformly",
    )
    max_px: PerLevel = Field(
        default=(100.0, 20.0, 5.0), description="mean displacement in an image 512 px wide"
    )


class LmConfig(Section):
    """The alignment through which the network is trained."""

    iterations: int = Field(default=3, ge=1, description="per level")
    unrolled: bool = Field(
        default=True,
        description="true: the gradient passes through all steps of a level; false: only through "
        "the last",
    )
    policy: Literal["pixloc_ros", "reference"] = Field(
        default="pixloc_ros",
        description="rules of the alignment, like alignment.policy of the localizer",
    )
    border_px: int = Field(
        default=2,
        ge=1,
        description="border of each level where points are ignored; only for policy reference",
    )


class InfoNceConfig(Section):
    """Makes a point's features alike in both images, and unlike those of other points."""

    weight: float = Field(default=1.0, ge=0, description="weight at the beginning; 0: no such loss")
    final_weight: float = Field(default=0.1, ge=0, description="weight from `until` on")
    until: float = Field(
        default=0.3, gt=0, le=1, description="share of the steps until the final weight is reached"
    )
    temperature: float = Field(default=0.07, gt=0, description="of the similarity's softmax")
    ignored_strides: float = Field(
        default=2.0, ge=0, description="nearer points are not used as negatives, in strides"
    )


class DistillConfig(Section):
    """The network that the objective `distill` imitates."""

    teacher: str = Field(default="compact_seed", description="weights, name or path")


class OptimizerConfig(Section):
    """AdamW with a cosine schedule and gradient clipping."""

    lr: float = Field(default=1e-3, gt=0, description="learning rate of decoder and heads")
    encoder_lr: float = Field(
        default=2.5e-4,
        ge=0,
        description="learning rate of the encoder; 0: it is frozen, with its batch norms",
    )
    damping_lr: float = Field(default=1e-2, ge=0, description="learning rate of the damping")
    weight_decay: float = Field(default=1e-4, ge=0, description="of all parameters but the damping")
    warmup_steps: int = Field(
        default=0, ge=0, description="number of steps in which the rates rise linearly"
    )
    final_share: float = Field(
        default=0.02, ge=0, le=1, description="share of the rates that is left at the end"
    )
    max_norm: float = Field(
        default=1.0, gt=0, description="largest norm of the gradient; longer ones are scaled down"
    )


class ValidationConfig(Section):
    """A fixed set of pairs and initial poses on which the averaged weights are measured."""

    every: int = Field(default=500, ge=0, description="steps between validations; 0: never")
    pairs: int = Field(default=64, ge=1, description="pairs per source")
    start_px: float = Field(
        default=50.0, gt=0, description="mean initial displacement, in an image 512 px wide"
    )
    iterations: int = Field(default=20, ge=1, description="maximum per level")
    converged_px: float = Field(default=1 / 3, gt=0, description="largest mean error of a success")
    data: tuple[SourceConfig, ...] = Field(
        default=(), description="held-out sources; if empty, those of the training"
    )
    augmentation: AugmentationConfig = AugmentationConfig(enabled=False)


class TrainConfig(Section):
    """A whole training run."""

    name: str = Field(default="trained", pattern=r"^[\w.-]+$", description="name of the weights")
    data: tuple[SourceConfig, ...] = Field(min_length=1, description="sources, mixed by weight")
    data_licence: str = Field(
        default="not stated",
        description="licence of the images, for the model card: what may users do with the "
        "weights?",
    )
    augmentation: AugmentationConfig = AugmentationConfig()
    seed: int = Field(default=0, ge=0, description="seed of everything random")
    steps: int = Field(default=3000, ge=1, description="number of optimizer steps")
    batch: int = Field(default=64, ge=1, description="pairs per step and process")
    size: tuple[int, int] = Field(default=(512, 384), description="width and height of the images")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: GPU if any")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto",
        description="number format of the network; auto: bfloat16 on a GPU that supports it",
    )
    prefetch: int = Field(
        default=2, ge=0, description="batches prepared ahead in a thread; 0: none"
    )
    objective: Literal["short_lm", "unrolled", "distill"] = Field(
        default="short_lm",
        description="short_lm: short alignments, each level from its own initial poses; unrolled: "
        "eq. 8; distill: imitate a teacher",
    )
    model: ModelConfig = ModelConfig()
    starts: StartsConfig = StartsConfig()
    lm: LmConfig = LmConfig()
    info_nce: InfoNceConfig = InfoNceConfig()
    distill: DistillConfig = DistillConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged weights")
    max_bad_steps: int = Field(
        default=50, ge=1, description="end after this many successive steps without a finite loss"
    )
    log_every: int = Field(default=20, ge=1, description="steps per record in metrics.jsonl")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")
    validation: ValidationConfig = ValidationConfig()

    def to_yaml(self) -> str:
        """Return all settings as a file that `load` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: Path) -> TrainConfig:
    """Read a YAML file.

    Raises ConfigError for an unreadable file, unknown keys (suggesting the nearest) and values out
    of range.
    """
    try:
        return TrainConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"training configuration {path}: {_first(error)}") from None


def differences(ours: TrainConfig, theirs: TrainConfig) -> Iterator[str]:
    """Yield `field: theirs -> ours` for every field that differs."""
    old, new = (dict(_leaves(config.model_dump(mode="json"))) for config in (theirs, ours))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)!r} -> {new.get(name)!r}"


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict | list):
        yield prefix, value
        return
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(item, f"{prefix}.{name}" if prefix else str(name))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"'{name}' = {json.dumps(first['input'], default=str)[:60]}: {first['msg']}"
    known = {key for each in _schemas() for key in each.get("properties", {})}
    match = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    return f"unknown key '{name}'" + (f": did you mean '{match[0]}'?" if match else "")


def _schemas() -> Iterator[dict[str, Any]]:
    schema = TrainConfig.model_json_schema()
    yield schema
    yield from schema["$defs"].values()
