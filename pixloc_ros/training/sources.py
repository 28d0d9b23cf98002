"""Open the sources that a configuration names, and mix them by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import ConfigError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.build.triangulation import triangulate
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.posed_images import keyframes, map_from_world, read_posed_images
from pixloc_ros.training.data_config import (
    AugmentationConfig,
    CmuConfig,
    ColmapConfig,
    LidarConfig,
    MegaDepthConfig,
    PhotosConfig,
    PosedConfig,
    SourceConfig,
)
from pixloc_ros.training.datasets import read_cmu, read_megadepth
from pixloc_ros.training.pairs import PairBatch, PairSource, concatenate
from pixloc_ros.training.photos import PhotoSource
from pixloc_ros.training.scenes import TrainingScene, pair_up, views_of_model
from pixloc_ros.training.views import ViewSource

LIDAR_CELLS = 8000  # per image, for selecting and observing points; maps need fewer


class Mixture:
    """Several sources; each pair is drawn from one of them, in proportion to the weights."""

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
        """Draw pairs, ordered by source; see PairSource.sample."""
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
    progress: Progress = silent,
) -> PairSource:
    """Open the mixture of all sources, for images of size (width, height).

    Raises DataError or MapError for data that are missing, unusable or in another layout.
    """
    augmentation = augmentation or AugmentationConfig()
    sources = [open_source(config, size, device, augmentation, progress) for config in configs]
    return Mixture(sources, [config.weight for config in configs])


def open_source(
    config: SourceConfig,
    size: tuple[int, int],
    device: torch.device | str,
    augmentation: AugmentationConfig,
    progress: Progress = silent,
) -> PairSource:
    """Open one source; see open_sources."""
    if isinstance(config, PhotosConfig):
        return PhotoSource(config, augmentation, size, device, progress)
    skipped: Counter[str] = Counter()
    scenes = open_scenes(config, skipped, progress)
    name = f"{config.kind} {config.path.parent.name}/{config.path.name}"
    return ViewSource(name, scenes, skipped, config, augmentation, size, device)


def open_scenes(
    config: ColmapConfig | PosedConfig | LidarConfig | MegaDepthConfig | CmuConfig,
    skipped: Counter[str],
    progress: Progress = silent,
) -> list[TrainingScene]:
    """Open the scenes of posed images; unusable images are counted in `skipped`."""
    if isinstance(config, MegaDepthConfig):
        return read_megadepth(config, skipped, progress)
    if isinstance(config, CmuConfig):
        return read_cmu(config, skipped, progress)
    model = _model(config, progress)
    views = views_of_model(model, config.images, config, skipped)
    if not views:
        raise DataError(f"{config.images} has none of the {len(model.images)} images of the model")
    return [pair_up(config.path.name, views, model.points_world, config)]


def _model(config: ColmapConfig | PosedConfig | LidarConfig, progress: Progress) -> ColmapModel:
    """Return points and their observers: read, triangulated, or from a cloud."""
    if isinstance(config, ColmapConfig):
        return read_model(config.path)
    meta = config.poses if isinstance(config, LidarConfig) else config.path
    posed = keyframes(read_posed_images(meta, config.images), config.images)
    if isinstance(config, PosedConfig):
        return triangulate(posed, progress, config.work)[0]
    points_map = se3.transform(map_from_world(meta), read_cloud(config.path))
    options = LidarOptions(config.voxel_m, LIDAR_CELLS, max_range_m=config.max_range_m)
    return model_from_cloud(points_map, posed, options, progress)[0]
