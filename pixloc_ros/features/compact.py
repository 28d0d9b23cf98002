"""The packaged networks, compact and fast: an EfficientNet-Lite0 encoder and a small U-Net decoder.

Both compute three levels, coarse to fine: strides 16, 4, 2 with 128, 64, 32 feature channels and
one confidence channel each. Attribute names are the prefixes of the state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixloc_ros.features.architecture import Architecture

STRIDES = (16, 4, 2)
DIMS = (128, 64, 32)
MEAN, STD = 0.498, 0.502

# expansion, kernel, stride, channels out, repeats
TRUNK = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
SKIP_AFTER_BLOCK = (0, 2, 4, 10, 15)  # strides 2, 4, 8, 16, 32


class InvertedResidual(nn.Module):
    """Expands, convolves depthwise, projects; adds the input if the shape is kept."""

    def __init__(self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        c_mid = c_in * expansion
        self.expands = expansion > 1
        self.residual = stride == 1 and c_in == c_out
        if self.expands:
            self._expand_conv = nn.Conv2d(c_in, c_mid, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(c_mid, eps=1e-3)
            self._act0 = nn.ReLU6(inplace=True)
        self._depthwise_conv = nn.Conv2d(
            c_mid, c_mid, kernel, stride, kernel // 2, groups=c_mid, bias=False
        )
        self._bn1 = nn.BatchNorm2d(c_mid, eps=1e-3)
        self._act1 = nn.ReLU6(inplace=True)
        self._project_conv = nn.Conv2d(c_mid, c_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = self._act0(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._act1(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Encoder(nn.Module):
    """EfficientNet-Lite0 trunk: images (B, 3, H, W) to five maps of strides 2, 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._act0 = nn.ReLU6(inplace=True)
        self._blocks = nn.ModuleList()
        c_in = 32
        for expansion, kernel, stride, c_out, repeats in TRUNK:
            for i in range(repeats):
                block = InvertedResidual(c_in, c_out, expansion, kernel, stride if i == 0 else 1)
                self._blocks.append(block)
                c_in = c_out

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self._act0(self._bn0(self._conv_stem(x)))
        skips = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in SKIP_AFTER_BLOCK:
                skips.append(x)
        return skips


def conv_bn(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)]


def conv_bn_relu(c_in: int, c_out: int) -> nn.Sequential:
    # In place: allocating each activation anew takes a fifth of the network's time on a CPU.
    return nn.Sequential(*conv_bn(c_in, c_out), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.a = conv_bn_relu(channels, channels)
        self.b = nn.Sequential(*conv_bn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)), inplace=True)


def upsample_and_join(x: Tensor, skip: Tensor) -> Tensor:
    """Upsample x (B, C1, h, w) and append skip (B, C2, H, W): (B, C1 + C2, H, W)."""
    x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, skip], 1)


class Up(nn.Module):
    """One step of the decoder."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.c = conv_bn_relu(c_in, c_out)
        self.r = Residual(c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.r(self.c(upsample_and_join(x, skip)))


def make_heads() -> nn.ModuleList:
    """Build the layers that map each level to features and confidence."""
    return nn.ModuleList(nn.Conv2d(dim, dim + 1, 1) for dim in DIMS)


class CompactNet(nn.Module):
    """Computes three packed maps from an image (B, 3, H, W) in [0, 1], H and W multiples of 32.

    Each output (B, C + 1, H / stride, W / stride), coarse to fine, holds C raw feature channels and
    the raw confidence; `level_of` normalises them. theta (3, 6) is the learned damping (eq. 7).
    """

    architecture = Architecture("compact", STRIDES, DIMS, size_multiple=32)

    def __init__(self) -> None:
        super().__init__()
        self.enc = Encoder()
        self.u4 = Up(320 + 112, 128)
        self.u3 = Up(128 + 40, 96)
        self.u2 = Up(96 + 24, 64)
        self.u1a = conv_bn_relu(64 + 16, 32)
        self.u1b = conv_bn_relu(32, 32)
        self.heads = make_heads()
        self.theta = nn.Parameter(torch.full((3, 6), -1.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s2, s4, s8, s16, s32 = self.enc((image - MEAN) / STD)
        x16 = self.u4(s32, s16)
        x4 = self.u2(self.u3(x16, s8), s4)
        x2 = self.u1b(self.u1a(upsample_and_join(x4, s2)))
        return self.heads[0](x16), self.heads[1](x4), self.heads[2](x2)


class NarrowUp(nn.Module):
    """One step of the fast decoder: narrow, upsample, append the skip, convolve once."""

    def __init__(self, c_in: int, c_narrow: int, c_skip: int, c_out: int):
        super().__init__()
        self.n = nn.Conv2d(c_in, c_narrow, 1)
        self.c = conv_bn_relu(c_narrow + c_skip, c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.c(upsample_and_join(self.n(x), skip))


class FastNet(nn.Module):
    """Combines the encoder of `CompactNet` with a decoder that needs a third of the arithmetic.

    A 1x1 convolution narrows maps before they are upsampled, and each step of the decoder has one
    3x3 convolution instead of three. Inputs and outputs are those of `CompactNet`.
    """

    architecture = Architecture("fast", STRIDES, DIMS, size_multiple=32)

    def __init__(self) -> None:
        super().__init__()
        self.enc = Encoder()
        self.u4 = NarrowUp(320, 96, 112, 128)
        self.u3 = NarrowUp(128, 64, 40, 64)
        self.u2 = NarrowUp(64, 48, 24, 48)
        self.r2 = conv_bn_relu(48, 64)
        self.u1 = NarrowUp(64, 16, 16, 32)
        self.heads = make_heads()
        self.theta = nn.Parameter(torch.full((3, 6), -1.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s2, s4, s8, s16, s32 = self.enc((image - MEAN) / STD)
        x16 = self.u4(s32, s16)
        x4 = self.r2(self.u2(self.u3(x16, s8), s4))
        x2 = self.u1(x4, s2)
        return self.heads[0](x16), self.heads[1](x4), self.heads[2](x2)
