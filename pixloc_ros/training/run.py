"""Run a whole training: from its configuration to a folder with weights and records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import TrainingError
from pixloc_ros.training.checkpoint import TrainingProgress
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import this_worker
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.pairs import PairBatch
from pixloc_ros.training.records import draw_curves, last_validation
from pixloc_ros.training.release import write_release
from pixloc_ros.training.sources import open_sources
from pixloc_ros.training.validation import Validation

PREVIEWED = 12  # number of pairs
COLUMNS = 2  # pairs per row
POINTS = 48  # drawn per pair
RADIUS_PX = 3
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Finished:
    """The results of a run."""

    weights: Path
    curves: Path
    progress: TrainingProgress
    figures: dict[str, float]  # of the last validation


def train(
    config: TrainConfig, folder: Path, resume: bool = False, progress: Progress = silent
) -> Finished | None:
    """Train, or continue training. Returns None in processes of torchrun that do not write.

    Afterwards the folder has config.yaml, checkpoint.safetensors, metrics.jsonl, curves.png,
    tensorboard/ if that is installed, and the averaged weights with their card. Raises
    TrainingError for a folder that holds another run, and whatever the sources raise for their
    data.
    """
    with this_worker(config.device) as worker:
        trainer = Trainer(config, worker, folder)
        _prepare_folder(folder, trainer, resume)
        source = open_sources(config.data, config.size, worker.device, config.augmentation)
        steps = trainer.run(source, Validation(config, worker))
        left = config.steps - trainer.progress.steps
        try:
            for _ in progress(steps, "training", left) if worker.writes else steps:
                pass
        except BaseException as error:
            kept = trainer.checkpoint.exists()
            error.add_note(
                f"{folder} has the last checkpoint: go on with --resume"
                if kept
                else f"{folder} has no checkpoint yet: the same command starts again"
            )
            raise
        if not worker.writes:
            return None
        weights = write_release(
            folder, config, trainer.average.network, trainer.progress, source, worker
        )
    return Finished(weights, draw_curves(folder), trainer.progress, last_validation(folder))


def write_preview(config: TrainConfig, path: Path) -> None:
    """Draw some of the pairs of the first step."""
    source = open_sources(config.data, config.size, "cpu", config.augmentation)
    save_preview(source.sample(PREVIEWED, torch.Generator().manual_seed(config.seed)), path)


def save_preview(batch: PairBatch, path: Path) -> None:
    """Write pairs side by side; each visible point has the same colour in both images."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    pixels_reference, _ = batch.camera_reference.project(batch.points_reference)
    pixels_query, _ = batch.camera_query.project(in_query)
    pairs = []
    for i, visible in enumerate(batch.visible):
        chosen = visible.nonzero()[:, 0][:POINTS]
        left = _drawn(batch.reference_rgb[i], pixels_reference[i, chosen])
        right = _drawn(batch.query_rgb[i], pixels_query[i, chosen])
        pairs.append(np.hstack([left, right]))
    blank = np.zeros_like(pairs[0])
    pairs += [blank] * (-len(pairs) % COLUMNS)
    rows = [np.hstack(pairs[i : i + COLUMNS]) for i in range(0, len(pairs), COLUMNS)]
    image_files.write(path, np.vstack(rows))


def _drawn(image: Tensor, pixels: Tensor) -> Image:
    """Return an image (3, H, W) in 0..1 as bytes (H, W, 3), with dots at pixels (N, 2)."""
    canvas = np.ascontiguousarray((image * 255).byte().movedim(0, -1).cpu().numpy())
    for (x, y), colour in zip(pixels.round().int().tolist(), _colours(len(pixels)), strict=True):
        cv2.circle(canvas, (x, y), RADIUS_PX, colour, 1, cv2.LINE_AA)
    return canvas


def _colours(count: int) -> list[tuple[int, int, int]]:
    hues = np.linspace(0, 179, max(count, 1), endpoint=False).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)[None]
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]][:count]


def _prepare_folder(folder: Path, trainer: Trainer, resume: bool) -> None:
    """Prepare the folder for this run."""
    if resume:
        trainer.resume()
    elif trainer.worker.writes and trainer.checkpoint.exists():
        raise TrainingError(f"{folder} holds a run: go on with --resume, or name another folder")
    if trainer.worker.writes:
        write_text(folder / "config.yaml", trainer.config.to_yaml())
