"""Convolutions for a CPU: oneDNN's, with the activation in the same pass and packed weights.

torch calls oneDNN for each convolution with plain weights, which it reorders anew every time, and
then runs the activation as a pass of its own. Both together are a sixth of its CPU time.
"""

from __future__ import annotations

import platform
from itertools import pairwise

import torch
from torch import Tensor, nn

# As torch's own compiler uses them; they are not part of its public interface.
OPERATORS = ("_convolution_pointwise", "_reorder_convolution_weight")

# Names that oneDNN's operators in torch have for activations, and their numbers.
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether these operators exist for a device and a format; they were tested on x86."""
    on_x86 = device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
    known = on_x86 and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    return known and (dtype is not torch.bfloat16 or computes_bfloat16())


def computes_bfloat16() -> bool:
    """Return whether oneDNN has convolutions in bfloat16 for this CPU (AVX-512, AVX-NE-CONVERT)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_convolutions(network: nn.Module) -> None:
    """Replace all convolutions of a network, in place, for inference only.

    An activation that its module registers right after a convolution becomes part of it; identities
    between the two do not count. Results stay the same: in bfloat16 to the last bit, in float32 to
    some millionths.
    """
    for module in list(network.modules()):
        children = [child for child in module.named_children() if not _is_identity(child[1])]
        for (name, child), (name_of_next, following) in pairwise([*children, ("", nn.Identity())]):
            if isinstance(child, nn.Conv2d):
                activation = following if type(following) in ACTIVATIONS else None
                setattr(module, name, PackedConvolution(child, activation))
                if activation is not None:
                    setattr(module, name_of_next, nn.Identity())


class PackedConvolution(nn.Module):
    """A convolution and its activation.

    Its weights are packed for one size of images, and again where the size changes: packed for
    another one, a convolution in bfloat16 takes four times as long.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None):
        super().__init__()
        self.conv = conv
        self.activation = ACTIVATIONS[type(activation)] if activation else ("none", [])
        self._packed: Tensor | None = None
        self._packed_for: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        conv = self.conv
        geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        if self._packed_for != x.shape:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight, *geometry, list(x.shape)
            )
            self._packed_for = x.shape
        kind, numbers = self.activation
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, conv.bias, *geometry, kind, numbers, ""
        )


def _is_identity(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)
