"""Measure how many of a fixed set of pairs the network aligns, as a localizer would."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.initial_poses import draw_initial_poses
from pixloc_ros.training.losses import MIN_COMMON_POINTS, mean_error_px
from pixloc_ros.training.model import PairNetwork
from pixloc_ros.training.objective import WIDTH_PX, policy_of
from pixloc_ros.training.pairs import PairBatch, PairSource
from pixloc_ros.training.sources import open_source
from pixloc_ros.training.unrolled import level_systems, refine

SEED = 20_210_619  # of pairs and initial poses, the same in every run, so that runs can be compared


RECALL_PX = (1, 3, 5)  # limits of a pair's mean error


def area_under_recall(errors_px: Tensor) -> float:
    """Return the area under the recall curve of errors (N,) up to 5 px; 1 at best."""
    return float((1 - errors_px / RECALL_PX[-1]).clamp(min=0).mean())


def _share(chosen: Tensor) -> float:
    return float(chosen.float().mean())


class Validation:
    """Draws the same pairs each time; runs in one process only."""

    def __init__(self, config: TrainConfig, worker: DistributedWorker):
        self.config = config
        augmentation = config.validation.augmentation
        measures = worker.writes and config.validation.every > 0
        self.sources = [
            open_source(each, config.size, worker.device, augmentation)
            for each in (config.validation.data or config.data if measures else ())
        ]

    def measure(self, network: PairNetwork) -> dict[str, float]:
        """Return, per source, how many pairs converged, and how near the truth pairs ended.

        recall_: share of pairs whose mean error is below this many pixels. area_: area under the
        recall curve up to this many pixels, 1 at best. median_px: median of the errors.
        """
        figures = {}
        for name, errors_px in self.errors_px(network).items():
            converged = errors_px < self.config.validation.converged_px
            figures[f"{name}/converged"] = _share(converged)
            figures[f"{name}/median_px"] = float(errors_px.median())
            for limit_px in RECALL_PX:
                figures[f"{name}/recall_{limit_px}px"] = _share(errors_px < limit_px)
            figures[f"{name}/area_{RECALL_PX[-1]}px"] = area_under_recall(errors_px)
        return figures

    def errors_px(self, network: PairNetwork) -> dict[str, Tensor]:
        """Return the mean error (N,) of every pair, by source; infinite if alignment failed."""
        return {
            source.name: torch.cat(list(self._errors_px(network, source)))
            for source in self.sources
        }

    @torch.no_grad()
    def _errors_px(self, network: PairNetwork, source: PairSource) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(SEED)
        left = self.config.validation.pairs
        while left > 0:
            batch = source.sample(min(left, self.config.batch), generator)
            left -= len(batch)
            yield self._align(network, batch, generator)

    def _align(self, network: PairNetwork, batch: PairBatch, generator: torch.Generator) -> Tensor:
        """Return mean errors (B,) in pixels of the pairs that share enough points."""
        settings, policy = self.config.validation, policy_of(self.config)
        packed, damping = network(torch.cat([batch.reference_rgb, batch.query_rgb]))
        systems = level_systems(packed, network.architecture, batch, policy)
        start_px = settings.start_px * batch.query_rgb.shape[-1] / WIDTH_PX
        start = draw_initial_poses(batch, start_px, generator)
        ends = refine(systems, [start], damping, settings.iterations, policy, stops=True)
        errors_px = mean_error_px(batch, ends[-1]).nan_to_num(torch.inf)
        return errors_px[batch.visible.sum(-1) >= MIN_COMMON_POINTS]
