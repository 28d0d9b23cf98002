"""Run a network by torch, as fast as the device allows."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pixloc_ros.features import weights
from pixloc_ros.features.architecture import damping
from pixloc_ros.features.cpu_convolutions import can_pack, computes_bfloat16, pack_convolutions

SIZES_KEPT = 2  # image sizes; each one's CUDA graph holds its activations
WARM_UP_RUNS = 3  # before a capture, in which libraries choose algorithms and allocate

Precision = Literal["auto", "float32", "bfloat16", "float64"]
Captured = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]


class TorchNetwork:
    """Runs the network of a weights file. Raises WeightsError as `weights.load` does.

    precision: on a CPU; a GPU uses float16.
    """

    runtime = f"torch {torch.__version__}"

    def __init__(self, weights_name: str, device: torch.device, precision: Precision):
        loaded = weights.load(weights_name)
        self.model_id, self.sha256 = loaded.model_id, loaded.sha256
        self.architecture = loaded.network.architecture
        self.damping = damping(loaded.network.theta.detach()).to(device)
        if self.architecture.as_published and precision != "float64":
            precision = "float32"
        module = prepared(loaded.network, device, precision)
        self.dtype = next(module.parameters()).dtype
        self._forward = CapturedNetwork(module) if device.type == "cuda" else module

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the packed maps, coarse to fine, of an image (1, 3, H, W) float32."""
        return self._forward(image.to(self.dtype))


def prepared(network: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """Prepare a network for inference, in place: fold batch norms, use channels last.

    Both together halve the time on a CPU, and bfloat16 halves it again if the CPU supports it.
    """
    fold_batch_norms(network)
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "float64":  # to compare results without rounding
        return network.double()
    wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    dtype = torch.bfloat16 if wanted and device.type == "cpu" else torch.float32
    if can_pack(device, dtype):
        pack_convolutions(network)
    return network.to(dtype)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution that its module registers before it."""
    for module in list(network.modules()):
        for (name, before), (name_of_norm, norm) in pairwise(list(module.named_children())):
            if isinstance(norm, nn.BatchNorm2d):
                assert isinstance(before, nn.Conv2d)
                setattr(module, name, fuse_conv_bn_eval(before, norm))
                setattr(module, name_of_norm, nn.Identity())


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a CPU multiplies in bfloat16; others emulate it, slower than float32."""
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # missing in older versions of torch
        return False
    capabilities = torch.cpu.get_capabilities()
    multiplies = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return multiplies and computes_bfloat16()


class CapturedNetwork:
    """Runs a network on a GPU in half precision, as one CUDA graph per image size.

    Each call overwrites what the last one returned.
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
