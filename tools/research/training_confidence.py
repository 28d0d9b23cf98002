"""`research training-confidence`: confidence maps of an image during training (Figure 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from pixloc_ros.cli.progress import track
from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.training.config import TrainConfig, load
from pixloc_ros.training.distributed import this_worker
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.release import write_release
from pixloc_ros.training.sources import open_sources
from pixloc_ros.training.validation import Validation
from pixloc_ros.visualization import drawing
from research.confidence_picture import draw_confidence


def training_confidence(
    configuration: Annotated[Path, typer.Argument(metavar="CONFIG", help="as for pixloc train")],
    image: Annotated[Path, typer.Option(help="image to draw the confidences of")],
    output: Annotated[Path, typer.Option(help="folder of the run; an interrupted run continues")],
    picture: Annotated[Path, typer.Option(help="picture to write, .jpg or .png")],
    at: Annotated[list[int], typer.Option(help="step after which to keep weights; repeatable")],
) -> None:
    """Train, keep the weights after some steps, and draw each one's confidences in a row.

    Example: python -m research training-confidence run.yaml --image view.jpg --output run
    --picture confidence.jpg --at 0 --at 50 --at 200
    """
    shown = image_files.read(image)
    if shown is None:
        raise DataError(f"{image} is missing or no image")
    config = load(configuration)
    config = config.model_copy(update={"steps": max(*at, 1)})
    _train(config, output, at)
    rows = [_row(shown, _weights(output, step, config.name), f"step {step}") for step in sorted(at)]
    image_files.write(picture, np.vstack(rows))


def _train(config: TrainConfig, folder: Path, steps: list[int]) -> None:
    with this_worker(config.device) as worker:
        trainer = Trainer(config, worker, folder)
        trainer.resume()
        source = open_sources(config.data, config.size, worker.device, config.augmentation)

        def keep() -> None:
            done = trainer.progress
            if done.steps in steps:
                place = folder / f"step_{done.steps}"
                place.mkdir(parents=True, exist_ok=True)
                write_release(place, config, trainer.average.network, done, source, worker)

        folder.mkdir(parents=True, exist_ok=True)
        keep()
        left = config.steps - trainer.progress.steps
        for _ in track(trainer.run(source, Validation(config, worker)), "training", left):
            keep()


def _weights(folder: Path, step: int, name: str) -> Path:
    return folder / f"step_{step}" / f"{name}.safetensors"


def _row(shown: NDArray[np.uint8], weights: Path, label: str) -> NDArray[np.uint8]:
    panel = draw_confidence(shown, FeatureExtractor(str(weights)).extract(shown))
    drawing.label(panel[panel.shape[0] // 2 :], label)
    return panel
