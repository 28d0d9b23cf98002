"""Write the result of a run: weights that the localizer loads, with a card that describes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pixloc_ros.common.atomic_write import atomic_path, write_text
from pixloc_ros.evaluation.benchmark import device_name
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.training.checkpoint import TrainingProgress
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.model import PairNetwork
from pixloc_ros.training.pairs import PairSource
from pixloc_ros.training.records import last_validation

CARD = """# {config.name}

| | |
|---|---|
| architecture | `{architecture.name}`, {parameters:.2f} M parameters |
| file | safetensors, float16, {megabytes:.1f} MB, SHA-256 `{sha256}` |
| output | strides {architecture.strides}, {architecture.dims} feature channels, learned damping |
| begun from | {config.model.init} |
| data | {source.name} ({count} photos or pairs of images; skipped: {skipped}) |
| licence of the data | {config.data_licence} |
| training | {progress.steps} steps in {progress.seconds:.0f} s, objective {config.objective} |
| a step | {pairs} pairs at {config.size[0]}x{config.size[1]} |
| steps left out | {progress.skipped}, without a finite loss |
| hardware | {progress.processes} x {device}, PyTorch {torch} |
| command | `pixloc train config.yaml --output DIR`; config.yaml is beside the checkpoint |

## Figures of the last validation
{figures}

## To be filled in
What these weights are good at and where they fail, on data that they have not seen; who may use
them.
"""
HALF_MAX = torch.finfo(torch.half).max


def write_release(
    folder: Path,
    config: TrainConfig,
    average: PairNetwork,
    progress: TrainingProgress,
    source: PairSource,
    worker: DistributedWorker,
) -> Path:
    """Write NAME.safetensors, NAME.json and NAME.md. Raises DataError if that fails."""
    network = average.network
    content = save({name: _compact(value) for name, value in network.state_dict().items()})
    path = folder / f"{config.name}.safetensors"
    with atomic_path(path) as part:
        part.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    about = _about(config, average.architecture, sha256)
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    card = CARD.format(
        config=config,
        architecture=average.architecture,
        progress=progress,
        source=source,
        sha256=sha256,
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        megabytes=len(content) / 1e6,
        count=len(source),
        skipped=dict(source.skipped) or "none",
        pairs=config.batch * progress.processes,
        device=device_name(str(worker.device)),
        torch=torch.__version__,
        figures=_table(last_validation(folder)),
    )
    write_text(path.with_suffix(".md"), card)
    return path


def _about(config: TrainConfig, architecture: Architecture, sha256: str) -> dict[str, Any]:
    """Return the content of the JSON file beside the weights, whose hash is checked on loading."""
    return {
        "model": architecture.name,
        "sha256": sha256,
        "precision": "float16",
        "strides": architecture.strides,
        "dims": architecture.dims,
        "licence": config.data_licence,
        "card": f"{config.name}.md",
    }


def _compact(value: Tensor) -> Tensor:
    """Convert to half precision if the numbers fit."""
    value = value.detach().cpu().contiguous()
    fits = value.is_floating_point() and bool(value.abs().max() < HALF_MAX)
    return value.half() if fits else value


def _table(figures: dict[str, float]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    return "\n".join(["| figure | value |", "|---|---|", *rows]) if rows else "None was measured."
