"""AdamW with a learning rate per part of the network, a cosine schedule and gradient clipping."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from pixloc_ros.training.config import OptimizerConfig
from pixloc_ros.training.model import ENCODERS

DAMPINGS = ("theta", "optimizer.")


class Optimizer:
    """Makes steps of AdamW. Rates depend only on the step, so a resumed run has the same ones."""

    def __init__(self, network: nn.Module, config: OptimizerConfig, steps: int):
        self.config, self.steps = config, steps
        self.parameters = list(network.parameters())
        self.adam = AdamW(_groups(network, config))
        for group in self.adam.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(group["lr"] > 0)
        self.rates = [float(group["lr"]) for group in self.adam.param_groups]

    def clip(self) -> Tensor:
        """Limit the norm of the gradient; return the norm () before."""
        return clip_grad_norm_(self.parameters, self.config.max_norm)

    def step(self, number: int) -> None:
        """Apply the gradient of the step with this number, counted from 0."""
        factor = self.factor(number)
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.adam.step()

    def factor(self, number: int) -> float:
        """Return the factor on all rates in the step with this number."""
        warmup, last = self.config.warmup_steps, self.config.final_share
        if number < warmup:
            return (number + 1) / (warmup + 1)
        done = (number - warmup) / max(1, self.steps - warmup)
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))


def _groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, object]]:
    parts: dict[str, list[nn.Parameter]] = {"encoder": [], "damping": [], "decoder": []}
    for name, parameter in network.named_parameters():
        is_encoder, is_damping = name.startswith(ENCODERS), name.startswith(DAMPINGS)
        part = "encoder" if is_encoder else "damping" if is_damping else "decoder"
        parts[part].append(parameter)
    rates = {
        "encoder": (config.encoder_lr, config.weight_decay),
        "damping": (config.damping_lr, 0.0),
        "decoder": (config.lr, config.weight_decay),
    }
    return [
        {"params": parts[part], "lr": lr, "weight_decay": decay}
        for part, (lr, decay) in rates.items()
    ]
