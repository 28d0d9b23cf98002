"""`research training-comparison`: several trainings, each measured on the held-out scenes of all.

Runs that differ in one setting are an ablation of training (Table 3 of the paper); runs on
different kinds of places test how training generalizes from one to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.progress import track
from pixloc_ros.errors import DataError
from pixloc_ros.training import run
from pixloc_ros.training.config import TrainConfig, load
from pixloc_ros.training.distributed import DistributedWorker, this_worker
from pixloc_ros.training.model import PairNetwork, initial_network
from pixloc_ros.training.validation import Validation, area_under_recall
from research import experiment

RECALL_PX = 1.0
UNTRAINED = "untrained"


def training_comparison(
    configurations: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG...", help="as for pixloc train, each with a name"),
    ],
    output: Annotated[
        Path, typer.Option(help="folder for the runs and errors.json; interrupted runs continue")
    ],
    weights: Annotated[
        list[str] | None, typer.Option(help="also measure these, by name or file; repeatable")
    ] = None,
) -> None:
    """Train with every configuration, and align the held-out pairs of all with every network.

    Pairs, initial poses and limits are those of the first configuration's `validation`; its
    `validation.data` and those of the others are the test data.

    Example: python -m research training-comparison street.yaml drive.yaml --weights compact_seed
    --output comparison
    """
    configs = [load(path) for path in configurations]
    _check(configs)
    trained = {config.name: _train(config, output / config.name) for config in configs}
    networks = {UNTRAINED: configs[0].model.init, **trained, **{w: w for w in weights or ()}}
    record = experiment.Record(output / "errors.json")
    with this_worker(configs[0].device) as worker:
        validation = Validation(_pooled(configs), worker)
        for name, file in networks.items():
            if not record.has(_case(name, validation.sources[-1].name), Path(name)):
                found = validation.errors_px(_network(configs[0], file, worker))
                pixels = {_case(name, source): e.numpy()[:, None] for source, e in found.items()}
                record.add_all(pixels, Path(name))
    names = [source.name for source in validation.sources]
    Console().print(_table(record.pooled(), list(networks), names))


def _check(configs: list[TrainConfig]) -> None:
    if len({config.name for config in configs}) < len(configs):
        raise DataError("two configurations have the same `name`: their runs need separate folders")
    for config in configs:
        if not config.validation.data or config.validation.every == 0:
            raise DataError(f"'{config.name}' needs held-out scenes: validation.data, and every")


def _train(config: TrainConfig, folder: Path) -> str:
    """Return the weights of a run; continue it unless it has ended with these settings."""
    weights = folder / f"{config.name}.safetensors"
    if weights.is_file() and load(folder / "config.yaml") == config:
        return str(weights)
    finished = run.train(config, folder, resume=True, progress=track)
    assert finished is not None
    return str(finished.weights)


def _pooled(configs: list[TrainConfig]) -> TrainConfig:
    """Return the first configuration with the held-out scenes of all, each once."""
    data = {source.model_dump_json(): source for c in configs for source in c.validation.data}
    validation = configs[0].validation.model_copy(update={"data": tuple(data.values())})
    return configs[0].model_copy(update={"validation": validation})


def _network(config: TrainConfig, weights: str, worker: DistributedWorker) -> PairNetwork:
    torch.manual_seed(config.seed)  # for random initial values
    model = config.model.model_copy(update={"init": weights})
    return PairNetwork(initial_network(model), config, worker.device).eval()


def _case(name: str, source: str) -> str:
    return f"{name} on {source}"


def _table(found: dict[str, np.ndarray], names: list[str], sources: list[str]) -> Table:
    table = Table("trained as", *sources, title=f"Pairs within {RECALL_PX:g} px; median; area")
    for name in names:
        table.add_row(name, *_cells(found, name, sources))
    return table


def _cells(found: dict[str, np.ndarray], name: str, sources: list[str]) -> Iterator[str]:
    for source in sources:
        errors_px = found[_case(name, source)][:, 0]
        area = area_under_recall(torch.from_numpy(errors_px))
        hits = experiment.Share(int((errors_px < RECALL_PX).sum()), len(errors_px))
        yield f"{hits}; {np.median(errors_px):.2f} px; {area:.2f}"
