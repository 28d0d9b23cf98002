"""Store the state of a run in one safetensors file, atomically and without pickle.

Random draws depend only on seed, step and process, so no generator state is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.common.foreign_files import parse_json, refusing
from pixloc_ros.errors import TrainingError
from pixloc_ros.training.config import TrainConfig, differences


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run has come."""

    steps: int = 0  # done so far
    skipped: int = 0  # of these, steps without a finite loss
    seconds: float = 0.0  # of work, including earlier sessions of a resumed run
    processes: int = 1


def write(
    path: Path,
    config: TrainConfig,
    progress: TrainingProgress,
    networks: Mapping[str, nn.Module],
    adam: Optimizer,
) -> None:
    """Replace the checkpoint. Raises DataError if it cannot be written; the old one then stays."""
    tensors = {
        f"{part}.{name}": value
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    }
    tensors |= dict(_moments(adam))
    metadata = {"progress": json.dumps(asdict(progress)), "config": config.model_dump_json()}
    content = save({name: value.contiguous() for name, value in tensors.items()}, metadata)
    with atomic_path(path) as part:
        part.write_bytes(content)


def read(
    path: Path,
    config: TrainConfig,
    processes: int,
    networks: Mapping[str, nn.Module],
    adam: Optimizer,
) -> TrainingProgress:
    """Load networks and optimizer from a checkpoint.

    Raises TrainingError for a file that is not a checkpoint, and for a run with other settings.
    """
    with refusing(TrainingError, path, "is it the checkpoint of this run?"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = TrainingProgress(**parse_json(metadata["progress"]))
        theirs = TrainConfig.model_validate_json(metadata["config"])
        _check(path, config, theirs, processes, progress)
        for part, network in networks.items():
            network.load_state_dict(dict(_under(tensors, part)))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "adam"):
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = value
        adam.load_state_dict({**adam.state_dict(), "state": moments})
    return progress


def _check(
    path: Path, ours: TrainConfig, theirs: TrainConfig, processes: int, progress: TrainingProgress
) -> None:
    changed = list(differences(ours, theirs))
    if processes != progress.processes:
        changed.append(f"processes: {progress.processes} -> {processes}")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise TrainingError(
            f"cannot resume {path.parent} with other settings: {'; '.join(changed[:3])}{more}; "
            "train into another folder"
        )


def _moments(adam: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for index, moments in adam.state_dict()["state"].items():
        for name, value in moments.items():
            yield f"adam.{index}.{name}", value


def _under(tensors: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            yield name.removeprefix(f"{prefix}."), value
