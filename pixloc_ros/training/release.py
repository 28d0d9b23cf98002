"""What a run ends with: weights that the localizer loads, with a card that says what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from pixloc_ros.evaluation.atomic import atomic_path, write_text
from pixloc_ros.evaluation.benchmark import device_name
from pixloc_ros.training.checkpoint import Progress
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import Worker
from pixloc_ros.training.model import PairNetwork
from pixloc_ros.training.pairs import PairSource
from pixloc_ros.training.records import read

CARD = """# {name}

| | |
|---|---|
| architecture | `{architecture}`, {parameters:.2f} M parameters |
| file | safetensors, {precision}, {megabytes:.1f} MB, SHA-256 `{sha256}` |
| output | strides {strides}; {dims} feature channels; learned damping per level |
| begun from | {init} |
| data | {data} ({count} photos or pairs of images; skipped: {skipped}) |
| licence of the data | {data_licence} |
| training | {steps} steps of {pairs} pairs at {width}x{height}, {seconds:.0f} s |
| steps left out | {left_out}, without a finite loss |
| hardware | {processes} x {device}, PyTorch {torch} |
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
    progress: Progress,
    source: PairSource,
    worker: Worker,
) -> Path:
    """Write NAME.safetensors, NAME.json and NAME.md. Raises DataError when that fails."""
    network, architecture = average.network, average.architecture
    content = save({name: _compact(value) for name, value in network.state_dict().items()})
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"{config.name}.safetensors"
    about = {
        "model": architecture.name,
        "sha256": sha256,
        "precision": "float16",
        "strides": architecture.strides,
        "dims": architecture.dims,
        "licence": config.data_licence,
        "card": f"{config.name}.md",
    }
    with atomic_path(path) as part:
        part.write_bytes(content)
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    card = CARD.format(
        **about,
        name=config.name,
        architecture=architecture.name,
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        megabytes=len(content) / 1e6,
        init=config.model.init,
        data=source.name,
        count=len(source),
        skipped=dict(source.skipped) or "none",
        data_licence=config.data_licence,
        steps=progress.steps,
        pairs=config.batch * progress.processes,
        width=config.size[0],
        height=config.size[1],
        seconds=progress.seconds,
        left_out=progress.skipped,
        processes=progress.processes,
        device=device_name(str(worker.device)),
        torch=torch.__version__,
        figures=_last_validation(folder),
    )
    write_text(path.with_suffix(".md"), card)
    return path


def _compact(value: Tensor) -> Tensor:
    """Half precision where the numbers fit into it."""
    value = value.detach().cpu().contiguous()
    fits = value.is_floating_point() and bool(value.abs().max() < HALF_MAX)
    return value.half() if fits else value


def _last_validation(folder: Path) -> str:
    measured = [record for record in read(folder) if any("/" in name for name in record)]
    if not measured:
        return "None was measured."
    rows = [f"| {name} | {value:.4g} |" for name, value in measured[-1].items()]
    return "\n".join(["| figure | value |", "|---|---|", *rows])
