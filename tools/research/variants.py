"""Make weights for ablations, without one learned part, for `--weights FILE`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from pixloc_ros.errors import WeightsError
from pixloc_ros.features import weights
from pixloc_ros.features.compact import CompactNet, FastNet

Images = Iterable[NDArray[np.uint8]]  # (H, W, 3) each
CERTAIN = 10.0  # its sigmoid is 1
FIXED_DAMPING = 1e-2  # relative to the Hessian's diagonal, everywhere


def random_network(images: Images, architecture: str = "compact", seed: int = 0) -> nn.Module:
    """Return random weights; without the images' batch norm statistics activations vanish."""
    torch.manual_seed(seed)
    network = weights.build(architecture).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the images
    with torch.no_grad():
        for image in images:
            network(_to_tensor(image, network.architecture.size_multiple))
    return network


def without_confidence(name: str) -> nn.Module:
    """Return the network of these weights with full confidence everywhere.

    Raises WeightsError without heads.
    """
    network = weights.load(name).network
    if not isinstance(network, CompactNet | FastNet):
        raise WeightsError(f"'{name}' is of {network.architecture.name}, whose heads are not known")
    with torch.no_grad():
        for head in network.heads:
            assert isinstance(head, nn.Conv2d) and head.bias is not None
            head.weight[-1], head.bias[-1] = 0.0, CERTAIN
    return network


def with_fixed_damping(name: str) -> nn.Module:
    """Return the network of these weights with the same damping on all levels and axes."""
    network = weights.load(name).network
    share = (math.log10(FIXED_DAMPING) + 6.0) / 11.0  # see architecture.damping
    with torch.no_grad():
        network.theta.fill_(math.log(share / (1.0 - share)))
    return network


VARIANTS: dict[str, Callable[[str, Images], nn.Module]] = {
    "random": lambda name, images: random_network(
        images, weights.load(name).network.architecture.name
    ),
    "no_confidence": lambda name, images: without_confidence(name),
    "fixed_damping": lambda name, images: with_fixed_damping(name),
}


def write(network: nn.Module, path: Path) -> None:
    """Write the state of a network as `weights.load` reads it."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


def _to_tensor(image_rgb: NDArray[np.uint8], multiple: int) -> torch.Tensor:
    height, width = (side // multiple * multiple for side in image_rgb.shape[:2])
    image = torch.from_numpy(image_rgb[:height, :width].copy())
    return image.permute(2, 0, 1)[None].float() / 255
