"""Train a small network to imitate a large one: its features and confidences at every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pixloc_ros.errors import ConfigError
from pixloc_ros.features import weights
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.training.config import TrainConfig
from pixloc_ros.training.model import PairNetwork
from pixloc_ros.training.objective import LEVELS, Loss

BACKGROUND = 0.1  # added to the teacher's confidence, so that what it ignores counts a little


class Teacher:
    """The network to imitate; it does not change.

    Raises WeightsError for unreadable weights, and ConfigError if their levels differ from the
    student's.
    """

    def __init__(self, config: TrainConfig, student: Architecture, device: torch.device):
        name = config.distill.teacher
        network = weights.load(name).network
        theirs = network.architecture
        if (theirs.strides, theirs.dims) != (student.strides, student.dims):
            raise ConfigError(
                f"distill.teacher {name} has strides {theirs.strides} and dimensions "
                f"{theirs.dims}, {student.name} has {student.strides} and {student.dims}"
            )
        self.network = PairNetwork(network, config, device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return packed maps of images (B, 3, H, W), coarse to fine."""
        return self.network(images)[0]


def distillation_loss(packed: Sequence[Tensor], taught: Sequence[Tensor]) -> Loss:
    """Compute the loss of packed maps of student and teacher, (B, C + 1, H, W) per level."""
    levels = [_level_losses(*maps) for maps in zip(packed, taught, strict=True)]
    total = torch.stack([sum(losses, losses[0].new_zeros(())) for losses in levels]).sum()
    named = zip(LEVELS, levels, strict=True)
    return Loss(total, {f"feature_error_{level}": losses[0].detach() for level, losses in named})


def _level_losses(packed: Tensor, taught: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared errors of features, of their image gradients, and of confidences.

    The alignment follows the gradients, so features that are right on average do not suffice.
    """
    features, features_taught = (F.normalize(maps[:, :-1], dim=1) for maps in (packed, taught))
    error, confidence = features - features_taught, taught[:, -1:].sigmoid()
    weight = confidence + BACKGROUND
    of_features = (weight * error.square().sum(1, keepdim=True)).mean() / weight.mean()
    of_gradients = sum(error.diff(dim=dim).square().sum(1).mean() for dim in (-1, -2))
    of_confidences = F.binary_cross_entropy_with_logits(packed[:, -1:], confidence)
    return of_features, torch.as_tensor(of_gradients), of_confidences
