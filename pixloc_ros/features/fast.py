"""The fast network: the encoder of `compact` and a third of its decoder's arithmetic.

Same strides, same numbers of channels. Maps are narrowed by a 1x1 convolution before they are
upsampled, and each step of the decoder has one 3x3 convolution instead of three.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.compact import (
    DIMS,
    MEAN,
    STD,
    STRIDES,
    Encoder,
    conv_bn_relu,
    make_heads,
    upsample_and_join,
)


class NarrowUp(nn.Module):
    """One step of the decoder: narrow, upsample, join the skip, one convolution."""

    def __init__(self, c_in: int, c_narrow: int, c_skip: int, c_out: int):
        super().__init__()
        self.n = nn.Conv2d(c_in, c_narrow, 1)
        self.c = conv_bn_relu(c_narrow + c_skip, c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.c(upsample_and_join(self.n(x), skip))


class FastNet(nn.Module):
    """Inputs and outputs are those of CompactNet."""

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
