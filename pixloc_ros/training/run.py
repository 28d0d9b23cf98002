"""A whole training run: from its configuration to a folder with weights and how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import TrainingError
from pixloc_ros.training.checkpoint import TrainingProgress
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import this_worker
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.preview import save_preview
from pixloc_ros.training.records import draw_curves, last_validation
from pixloc_ros.training.release import write_release
from pixloc_ros.training.sources import open_sources
from pixloc_ros.training.validation import Validation

PREVIEWED = 12  # pairs


@dataclass(frozen=True, slots=True)
class Finished:
    """What is left of a run."""

    weights: Path
    curves: Path
    progress: TrainingProgress
    figures: dict[str, float]  # of the last validation


def train(
    config: TrainConfig, folder: Path, resume: bool = False, progress: Progress = silent
) -> Finished | None:
    """Train, or go on training. In the processes of torchrun that do not write: None.

    The folder then has config.yaml, checkpoint.safetensors, metrics.jsonl, curves.png, tensorboard/
    where that is installed, and the averaged weights with their card. Raises TrainingError for a
    folder that holds another run, and whatever the sources raise for their data.
    """
    with this_worker(config.device) as worker:
        trainer = Trainer(config, worker, folder)
        _take(folder, trainer, resume)
        source = open_sources(config.data, config.size, worker.device, config.augmentation)
        steps = trainer.run(source, Validation(config, worker))
        left = config.steps - trainer.progress.steps
        for _ in progress(steps, "training", left) if worker.writes else steps:
            pass
        if not worker.writes:
            return None
        weights = write_release(
            folder, config, trainer.average.network, trainer.progress, source, worker
        )
    return Finished(weights, draw_curves(folder), trainer.progress, last_validation(folder))


def write_preview(config: TrainConfig, path: Path) -> None:
    """Draw some of the pairs that the first step would see."""
    source = open_sources(config.data, config.size, "cpu", config.augmentation)
    save_preview(source.sample(PREVIEWED, torch.Generator().manual_seed(config.seed)), path)


def _take(folder: Path, trainer: Trainer, resume: bool) -> None:
    """Make the folder that of this run."""
    if resume:
        trainer.resume()
    elif trainer.worker.writes and trainer.checkpoint.exists():
        raise TrainingError(f"{folder} holds a run: go on with --resume, or name another folder")
    if trainer.worker.writes:
        write_text(folder / "config.yaml", trainer.config.to_yaml())
