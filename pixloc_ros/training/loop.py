"""The training loop: batch, loss, step; from time to time a record, a validation, a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from pixloc_ros.errors import TrainingError
from pixloc_ros.training import checkpoint
from pixloc_ros.training.checkpoint import TrainingProgress
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distillation import Teacher, distillation_loss
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.feeding import DrawnBatch, draw_ahead
from pixloc_ros.training.model import Average, PairNetwork, initial_network
from pixloc_ros.training.objective import batch_loss
from pixloc_ros.training.optimization import Optimizer
from pixloc_ros.training.pairs import PairSource
from pixloc_ros.training.records import Records
from pixloc_ros.training.validation import Validation


class Trainer:
    """One run, in one of its processes. The first process writes to the folder."""

    def __init__(self, config: TrainConfig, worker: DistributedWorker, folder: Path):
        self.config, self.worker, self.folder = config, worker, folder
        torch.manual_seed(config.seed)  # for weights that are initialized at random
        self.network = PairNetwork(initial_network(config.model), config, worker.device)
        distills = config.objective == "distill"
        architecture = self.network.architecture
        self.teacher = Teacher(config, architecture, worker.device) if distills else None
        self.average = Average(self.network, config.ema_decay)
        self.optimizer = Optimizer(self.network.network, config.optimizer, config.steps)
        self.progress = TrainingProgress(processes=worker.count)
        self._skipped_in_a_row = 0
        several = worker.count > 1
        self._forward = DistributedDataParallel(self.network) if several else self.network

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def run(self, source: PairSource, validation: Validation) -> Iterator[dict[str, float]]:
        """Train to the end on pairs of the source; yield the figures of every step.

        Raises TrainingError after too many successive steps without a finite loss, and DataError if
        a file cannot be written. The last checkpoint stays.
        """
        with Records(self.folder, self.progress.steps, self.worker.writes) as records:
            if self.progress.steps == 0:
                records.write(0, validation.measure(self.average.network))
            began = time.perf_counter()
            for drawn in draw_ahead(source, self.config, self.worker, self.progress.steps):
                figures = self.step(drawn)
                self._advance(time.perf_counter() - began)
                records.add(figures | self._pace(time.perf_counter() - began))
                yield figures
                if self._due(self.config.log_every):
                    records.write_means(self.progress.steps)
                if self._due(self.config.validation.every):
                    records.write(self.progress.steps, validation.measure(self.average.network))
                if self._due(self.config.checkpoint_every):
                    self.save()
                began = time.perf_counter()

    def step(self, drawn: DrawnBatch) -> dict[str, float]:
        """Make one optimizer step; skip it if the loss or its gradient is not finite."""
        batch = drawn.batch
        images = torch.cat([batch.reference_rgb, batch.query_rgb])
        packed, damping = self._forward(images)
        if self.teacher:
            loss = distillation_loss(packed, self.teacher(images))
        else:
            loss = batch_loss(self.config, self.network.architecture, packed, damping, drawn)
        self.optimizer.adam.zero_grad()
        loss.total.backward()
        norm = self.optimizer.clip()
        if self.worker.any(~(loss.total.isfinite() & norm.isfinite())):
            self._skip()
        else:
            self._skipped_in_a_row = 0
            self.optimizer.step(drawn.number)
            self.average.update(self.network, drawn.number)
        parts = {"loss": loss.total.detach(), "gradient_norm": norm, **loss.parts}
        return {name: float(value) for name, value in parts.items()}

    def save(self) -> None:
        """Write the checkpoint, if this process writes."""
        if self.worker.writes:
            checkpoint.write(
                self.checkpoint, self.config, self.progress, self._networks, self.optimizer.adam
            )

    def resume(self) -> None:
        """Continue from the folder's checkpoint; start at the beginning if there is none.

        Raises TrainingError for a checkpoint with other settings.
        """
        if self.checkpoint.is_file():
            self.progress = checkpoint.read(
                self.checkpoint, self.config, self.worker.count, self._networks, self.optimizer.adam
            )

    @property
    def _networks(self) -> dict[str, PairNetwork]:
        return {"network": self.network, "average": self.average.network}

    def _skip(self) -> None:
        """Undo a step, including its effect on the running statistics of norms."""
        self.average.restore_norms(self.network)
        self.progress = replace(self.progress, skipped=self.progress.skipped + 1)
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.config.max_bad_steps:
            kept = (
                f"the last good one is {self.checkpoint}"
                if self.checkpoint.is_file()
                else "none was written yet"
            )
            raise TrainingError(
                f"no finite loss in {self._skipped_in_a_row} steps in a row, after step "
                f"{self.progress.steps}: lower the learning rates or look at --preview; "
                f"checkpoints: {kept}"
            )

    def _advance(self, seconds: float) -> None:
        p = self.progress
        self.progress = replace(p, steps=p.steps + 1, seconds=p.seconds + seconds)

    def _pace(self, seconds: float) -> dict[str, float]:
        pairs_per_s = self.config.batch * self.worker.count / seconds
        return {"pairs_per_s": pairs_per_s, "skipped_steps": self.progress.skipped}

    def _due(self, every: int) -> bool:
        """Return whether work is due that recurs after so many steps and at the end; 0: never."""
        steps = self.progress.steps
        return every > 0 and (steps % every == 0 or steps == self.config.steps)
