"""The networks of the PixLoc paper: a VGG encoder with a U-Net decoder.

Attribute names are the prefixes of the state dict in the official checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixloc_ros.features.architecture import Architecture

# Output channels of each block's convolutions; all blocks but the first begin with a pooling.
VGG16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
DECODER = (64, 64, 64, 32)
HEADS = ((32, 32), (64, 128), (512, 128))  # channels in and out at strides 1, 4, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def encoder_block(c_in: int, channels: tuple[int, ...], pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    for c_out in channels:
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
        c_in = c_out
    return nn.Sequential(*layers)


class DecoderBlock(nn.Module):
    """Doubles the size and appends the encoder's map of that size."""

    def __init__(self, c_in: int, c_skip: int, c_out: int):
        super().__init__()
        conv = nn.Conv2d(c_in + c_skip, c_out, 3, padding=1, bias=False)
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        # Pooling has dropped an odd last row or column, so the skip drops it, too.
        skip = skip[:, :, : x.shape[2], : x.shape[3]]
        return self.layers(torch.cat([x, skip], 1))


class Extractor(nn.Module):
    """Encoder, decoder, and one 1x1 convolution per level for features and for uncertainty."""

    def __init__(self, blocks: tuple[tuple[int, ...], ...]):
        super().__init__()
        c_in = (3, *(channels[-1] for channels in blocks))
        self.encoder = nn.ModuleList(
            encoder_block(c_in[i], channels, pool=i > 0) for i, channels in enumerate(blocks)
        )
        widths = (c_in[-1], *DECODER)
        self.decoder = nn.ModuleList(
            DecoderBlock(widths[i], c_in[-2 - i], c_out) for i, c_out in enumerate(DECODER)
        )
        self.adaptation = nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, 1)) for a, b in HEADS)
        self.uncertainty = nn.ModuleList(nn.Sequential(nn.Conv2d(a, 1, 1)) for a, _ in HEADS)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return packed maps at strides 16, 4, 1 of an image (B, 3, H, W) in [0, 1]."""
        x = torch.stack([(image[:, i] - MEAN[i]) / STD[i] for i in range(3)], 1)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        maps = [x]
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = block(x, skip)
            maps.append(x)
        return tuple(self._head(level, maps[-1 - 2 * level]) for level in (2, 1, 0))

    def _head(self, level: int, x: Tensor) -> Tensor:
        # confidence = 1 / (1 + exp(uncertainty)), the sigmoid of the negative uncertainty
        return torch.cat([self.adaptation[level](x), -self.uncertainty[level](x)], 1)


class VggNet(nn.Module):
    """Network and learned damping, as in a checkpoint. Outputs are ordered from coarse to fine."""

    def __init__(self, name: str, blocks: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.architecture = Architecture(
            name, strides=(16, 4, 1), dims=(128, 128, 32), size_multiple=1, as_published=True
        )
        self.extractor = Extractor(blocks)
        self.optimizer = nn.ModuleList(
            nn.ModuleDict({"dampingnet": nn.ParameterDict({"const": torch.zeros(6)})})
            for _ in HEADS
        )

    @property
    def theta(self) -> Tensor:
        """Raw damping (3, 6), coarse to fine; the checkpoint has it from fine to coarse."""
        names = (f"optimizer.{level}.dampingnet.const" for level in (2, 1, 0))
        return torch.stack([self.get_parameter(name) for name in names])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.extractor(image)


def vgg16() -> VggNet:
    """Build the network of the CMU checkpoint, 15,712,405 parameters."""
    return VggNet("vgg16", VGG16)


def vgg19() -> VggNet:
    """Build the network of the MegaDepth checkpoint, 21,022,101 parameters."""
    return VggNet("vgg19", VGG19)
