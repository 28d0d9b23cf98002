"""Open the sources that a configuration names, and mix them by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from pixloc_ros.errors import ConfigError
from pixloc_ros.training.data_config import AugmentationConfig, PhotosConfig, SourceConfig
from pixloc_ros.training.pairs import PairBatch, PairSource, concatenate
from pixloc_ros.training.photos import PhotoSource


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


def open_sources(
    configs: Sequence[SourceConfig],
    size: tuple[int, int],
    device: torch.device | str,
    augmentation: AugmentationConfig | None = None,
) -> PairSource:
    """The mixture of all sources, for images of size (width, height).

    Raises DataError or MapError for data that are missing, unusable or laid out otherwise.
    """
    augmentation = augmentation or AugmentationConfig()
    sources = [open_source(config, size, device, augmentation) for config in configs]
    return Mixture(sources, [config.weight for config in configs])


def open_source(
    config: SourceConfig,
    size: tuple[int, int],
    device: torch.device | str,
    augmentation: AugmentationConfig,
) -> PairSource:
    """One source; see open_sources."""
    if isinstance(config, PhotosConfig):
        return PhotoSource(config, augmentation, size, device)
    raise NotImplementedError(config.kind)
