"""The processes that train together, one per device, started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from pixloc_ros.errors import TrainingError


@dataclass(frozen=True, slots=True)
class DistributedWorker:
    """One of `count` processes."""

    rank: int
    count: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes files and validates."""
        return self.rank == 0

    def any(self, here: Tensor) -> bool:
        """Return whether a condition () is true in any process."""
        if self.count > 1:
            here = here.float()
            distributed.all_reduce(here, distributed.ReduceOp.MAX)
        return bool(here)


@contextmanager
def this_worker(device: str) -> Iterator[DistributedWorker]:
    """Yield this process's place among those that torchrun started; alone without torchrun.

    device: auto, cpu or cuda. Raises TrainingError for a missing GPU.
    """
    rank, count = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    worker = DistributedWorker(rank, count, _device(device))
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)
    if count > 1:
        distributed.init_process_group("nccl" if worker.device.type == "cuda" else "gloo")
    try:
        yield worker
    finally:
        if count > 1:
            distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    found = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    if local >= found:
        raise TrainingError(f"process {local} of this machine has no GPU, of {found}: start fewer")
    return torch.device("cuda", local)
