"""The settings of a training run: every default, once. A run is decided by them alone."""

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
    """Which network is trained, and from what on."""

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
    """Poses that the alignment of training begins from."""

    at: Literal["random", "reference", "on_the_way"] = Field(
        default="random",
        description="reference: the reference image's pose; on_the_way: from there to the truth",
    )
    on_the_way: Shares = Field(default=(0.75, 1.0), description="share of the way, drawn uniformly")
    max_px: PerLevel = Field(
        default=(100.0, 20.0, 5.0), description="mean displacement in an image 512 px wide"
    )


class LmConfig(Section):
    """The alignment that is trained through."""

    iterations: int = Field(default=3, ge=1, description="per level")
    unrolled: bool = Field(
        default=True,
        description="the gradient goes through all steps of a level; false: through the last alone",
    )
    policy: Literal["pixloc_ros", "reference"] = Field(
        default="pixloc_ros", description="steps and rules, as alignment.policy of the localizer"
    )
    border_px: int = Field(
        default=2, ge=1, description="of each level, where nothing counts; policy reference only"
    )


class InfoNceConfig(Section):
    """Features of a point are to be alike in both images, and unlike those of other points."""

    weight: float = Field(default=1.0, ge=0, description="at the beginning; 0: not at all")
    final_weight: float = Field(default=0.1, ge=0, description="from `until` on")
    until: float = Field(default=0.3, gt=0, le=1, description="share of the steps")
    temperature: float = Field(default=0.07, gt=0, description="of the similarity's softmax")
    ignored_strides: float = Field(default=2.0, ge=0, description="nearer points are no negatives")


class DistillConfig(Section):
    """The network that the objective `distill` imitates."""

    teacher: str = Field(default="compact_seed", description="weights, name or path")


class OptimizerConfig(Section):
    """AdamW, a cosine, and a limit on the gradient."""

    lr: float = Field(default=1e-3, gt=0, description="of decoder and heads")
    encoder_lr: float = Field(
        default=2.5e-4, ge=0, description="of the encoder; 0: it stays, with its batch norms"
    )
    damping_lr: float = Field(default=1e-2, ge=0, description="of the learned damping")
    weight_decay: float = Field(default=1e-4, ge=0, description="of all but the damping")
    warmup_steps: int = Field(default=0, ge=0, description="rates rise linearly so long")
    final_share: float = Field(default=0.02, ge=0, le=1, description="of the rates, at the end")
    max_norm: float = Field(default=1.0, gt=0, description="of the gradient, before a step")


class ValidationConfig(Section):
    """A fixed set of pairs and starts that the averaged weights are measured on."""

    every: int = Field(default=500, ge=0, description="steps; 0: never")
    pairs: int = Field(default=64, ge=1, description="of each source")
    start_px: float = Field(default=50.0, gt=0, description="mean displacement, image 512 px wide")
    iterations: int = Field(default=20, ge=1, description="at most, per level")
    converged_px: float = Field(default=1 / 3, gt=0, description="mean error of a success")
    data: tuple[SourceConfig, ...] = Field(
        default=(), description="held-out sources; when empty those of the training"
    )
    augmentation: AugmentationConfig = AugmentationConfig(enabled=False)


class TrainConfig(Section):
    """A whole training run."""

    name: str = Field(default="trained", pattern=r"^[\w.-]+$", description="of the weights")
    data: tuple[SourceConfig, ...] = Field(min_length=1, description="sources, mixed by weight")
    data_licence: str = Field(
        default="not stated", description="of the images, for the model card: what may they do?"
    )
    augmentation: AugmentationConfig = AugmentationConfig()
    seed: int = Field(default=0, ge=0, description="of everything that is drawn")
    steps: int = Field(default=3000, ge=1, description="of the optimiser")
    batch: int = Field(default=64, ge=1, description="pairs per step and process")
    size: tuple[int, int] = Field(default=(512, 384), description="width and height of the images")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: GPU if any")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="of the network; auto: bfloat16 on a GPU that can"
    )
    prefetch: int = Field(default=2, ge=0, description="batches made ahead in a thread; 0: none")
    objective: Literal["short_lm", "unrolled", "distill"] = Field(
        default="short_lm",
        description="short alignments from starts of their own per level, or eq. 8",
    )
    model: ModelConfig = ModelConfig()
    starts: StartsConfig = StartsConfig()
    lm: LmConfig = LmConfig()
    info_nce: InfoNceConfig = InfoNceConfig()
    distill: DistillConfig = DistillConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="of the averaged weights")
    max_bad_steps: int = Field(default=50, ge=1, description="in a row without a finite loss")
    log_every: int = Field(default=20, ge=1, description="steps per record in metrics.jsonl")
    checkpoint_every: int = Field(default=500, ge=1, description="steps")
    validation: ValidationConfig = ValidationConfig()

    def to_yaml(self) -> str:
        """All settings, as a file that `load` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: Path) -> TrainConfig:
    """Read a YAML file.

    Raises ConfigError for a file that cannot be read, unknown keys (the nearest is named) and
    values out of range.
    """
    try:
        return TrainConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"training configuration {path}: {_first(error)}") from None


def differences(ours: TrainConfig, theirs: TrainConfig) -> Iterator[str]:
    """`field: theirs -> ours` for every field that differs."""
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
