"""Open the sources that a configuration names, and mix them by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from pixloc_ros.errors import ConfigError
from pixloc_ros.training.pairs import PairBatch, PairSource, concatenate


class Mixture:
    """Several sources, each pair drawn from one of them with a probability like its weight."""

    def __init__(self, sources: Sequence[PairSource], weights: Sequence[float]) -> None:
        if not sources or len(sources) != len(weights) or min(weights) <= 0:
            raise ConfigError("a mixture needs sources, and a positive weight for each")
        self.sources = tuple(sources)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.name = " + ".join(source.name for source in sources)

    @property
    def skipped(self) -> Counter[str]:
        return sum((source.skipped for source in self.sources), Counter())

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def sample(self, count: int, generator: torch.Generator) -> PairBatch:
        """Pairs ordered by source; see PairSource.sample."""
        drawn = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(self.sources)).tolist()
        return concatenate(
            [
                source.sample(share, generator)
                for source, share in zip(self.sources, counts, strict=True)
                if share
            ]
        )
