"""Robust costs of squared residuals x = |r|^2, each with its derivative by x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RobustCost:
    """Cauchy cost on x = |r|^2, scaled so that 1 is the cost of an unrelated feature (x = 2)."""

    scale: float

    def cost(self, x: Tensor) -> Tensor:
        return torch.log1p(x / self.scale) / math.log1p(2.0 / self.scale)

    def weight(self, x: Tensor) -> Tensor:
        """The derivative by x, up to the constant factor: 1 for small residuals."""
        return 1.0 / (1.0 + x / self.scale)


@dataclass(frozen=True, slots=True)
class Barron:
    """The general robust cost (Barron, CVPR 2019), x for small x; alpha 2 is the squared cost.

    Alpha 0 is the Cauchy cost: its weight is that of `RobustCost(2 * c**2)`.
    """

    alpha: float
    c: float

    def cost(self, x: Tensor) -> Tensor:
        x, c2 = x / self.c**2, self.c**2
        if self.alpha == 0:
            return c2 * 2 * torch.log1p(x / 2)
        if self.alpha == 2:
            return c2 * x
        bend = abs(self.alpha - 2)
        return c2 * 2 * bend / self.alpha * ((x / bend + 1) ** (self.alpha / 2) - 1)

    def weight(self, x: Tensor) -> Tensor:
        """The derivative by x."""
        if self.alpha == 2:
            return torch.ones_like(x)
        return (x / self.c**2 / abs(self.alpha - 2) + 1) ** (self.alpha / 2 - 1)


@dataclass(frozen=True, slots=True)
class Huber:
    """x up to delta^2, linear in |r| beyond."""

    delta: float = 1.0

    def cost(self, x: Tensor) -> Tensor:
        far = 2 * self.delta * x.clamp(min=self.delta**2).sqrt() - self.delta**2
        return torch.where(x <= self.delta**2, x, far)

    def weight(self, x: Tensor) -> Tensor:
        """The derivative by x."""
        return self.delta / x.clamp(min=self.delta**2).sqrt()
