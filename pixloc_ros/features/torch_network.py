"""A network that torch runs, as fast as the device can."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pixloc_ros.features import weights
from pixloc_ros.features.architecture import damping

SIZES_KEPT = 2  # of images; each holds the activations of its graph
WARM_UP_RUNS = 3  # before a capture, so that libraries have chosen and allocated

Precision = Literal["auto", "float32", "bfloat16", "float64"]
Captured = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]


class TorchNetwork:
    """The network of a weights file. Raises WeightsError as `weights.load` does.

    precision is that of a CPU; a GPU uses float16.
    """

    runtime = f"torch {torch.__version__}"

    def __init__(self, weights_name: str, device: torch.device, precision: Precision):
        loaded = weights.load(weights_name)
        self.model_id, self.sha256 = loaded.model_id, loaded.sha256
        self.architecture = loaded.network.architecture
        self.damping = damping(loaded.network.theta.detach()).to(device)
        exact = self.architecture.as_published
        module = fused(loaded.network, device, "float32" if exact else precision)
        if precision == "float64":  # to compare results without rounding
            module = module.double()
        self.dtype = next(module.parameters()).dtype
        self._forward = CapturedNetwork(module) if device.type == "cuda" else module

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Packed maps, coarse to fine, of an image (1, 3, H, W) float32."""
        return self._forward(image.to(self.dtype))


def fused(network: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """The network for inference, changed in place: batch norms folded, channels last.

    Both together halve the time on a CPU, and bfloat16 halves it again where the CPU has it.
    """
    fold_batch_norms(network)
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return network.bfloat16() if wanted and device.type == "cpu" else network


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution that its module registers before it."""
    for module in list(network.modules()):
        for (name, before), (name_of_norm, norm) in pairwise(list(module.named_children())):
            if isinstance(norm, nn.BatchNorm2d):
                assert isinstance(before, nn.Conv2d)
                setattr(module, name, fuse_conv_bn_eval(before, norm))
                setattr(module, name_of_norm, nn.Identity())


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CPU multiplies in bfloat16; others only emulate it, slower than float32."""
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # older versions of torch cannot tell
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class CapturedNetwork:
    """A network on a GPU in half precision, replayed as one CUDA graph per image size.

    What a call returns is overwritten by the next call.
    """

    def __init__(self, network: nn.Module):
        self.network = network.half()
        self._captured: dict[torch.Size, Captured] = {}

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device_of(image):
            if image.shape not in self._captured:
                while len(self._captured) >= SIZES_KEPT:
                    del self._captured[next(iter(self._captured))]
                self._captured[image.shape] = self._capture(image.half())
            graph, into, maps = self._captured[image.shape]
            into.copy_(image)
            graph.replay()
        return maps

    def _capture(self, image: Tensor) -> Captured:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self.network(image)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            maps = self.network(image)
        return graph, image, maps
