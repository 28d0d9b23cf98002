"""Prepare batches for the loop, ahead of time in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.pairs import PairBatch, PairSource


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """The pairs of a step, and the generator for its other random draws."""

    number: int  # of the step, starting at 0
    batch: PairBatch
    generator: torch.Generator


def draw(
    source: PairSource, config: TrainConfig, worker: DistributedWorker, number: int
) -> DrawnBatch:
    """Draw the pairs of one process in one step: a function of seed, step and rank alone."""
    seed = np.random.SeedSequence((config.seed, number, worker.rank)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(seed[0] >> np.uint64(1)))
    return DrawnBatch(number, source.sample(config.batch, generator), generator)


def draw_ahead(
    source: PairSource, config: TrainConfig, worker: DistributedWorker, first: int
) -> Iterator[DrawnBatch]:
    """Yield every step from `first` to the last; `prefetch` of them are prepared in advance."""
    numbers = iter(range(first, config.steps))
    if not config.prefetch:
        yield from (draw(source, config, worker, number) for number in numbers)
        return
    waiting: deque[Future[DrawnBatch]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for number in numbers:
            waiting.append(pool.submit(draw, source, config, worker, number))
            if len(waiting) > config.prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
