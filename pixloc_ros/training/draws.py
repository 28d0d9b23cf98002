"""Random numbers on the device, all determined by one generator on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class RandomDraws:
    """The random numbers of one batch: decisions are drawn on the CPU, fields on the device.

    So decisions need not wait for the device. It takes a single number from `generator`, whose
    state alone determines how a run continues.
    """

    def __init__(self, generator: torch.Generator, device: torch.device | str) -> None:
        seed = int(torch.randint(2**62, (), generator=generator))
        self.device = torch.device(device)
        self._decisions = torch.Generator().manual_seed(seed)
        self._fields = torch.Generator(self.device).manual_seed(seed + 1)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return uniform numbers in [low, high) on the device."""
        unit = torch.rand(*shape, generator=self._fields, device=self.device)
        return low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers on the device."""
        return torch.randn(*shape, generator=self._fields, device=self.device)

    def directions(self, count: int) -> Tensor:
        """Return unit vectors (count, 3), uniform on the sphere."""
        return torch.nn.functional.normalize(self.normal(count, 3), dim=-1)

    def integers(self, high: int, count: int) -> Tensor:
        """Return integers (count,) in [0, high), on the CPU."""
        return torch.randint(high, (count,), generator=self._decisions)

    def numpy(self) -> np.random.Generator:
        """Return a generator for decisions on the CPU."""
        return np.random.default_rng(int(self.integers(2**62, 1)))

    def chosen(self, count: int, probability: float) -> Tensor:
        """Return indices, on the device, of those among `count` items that an effect applies to."""
        befallen = torch.rand(count, generator=self._decisions) < probability
        return befallen.nonzero()[:, 0].to(self.device)

    def weighted(self, weights: Tensor, count: int) -> Tensor:
        """Return distinct indices (B, count), drawn by weights (B, M) on the device."""
        return torch.multinomial(weights, count, generator=self._fields)
