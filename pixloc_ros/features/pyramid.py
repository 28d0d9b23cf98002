"""From an image to a pyramid of features and confidences, as fast as the device can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from pixloc_ros.features import weights
from pixloc_ros.features.architecture import damping, unpack
from pixloc_ros.features.sampling import BILINEAR, FeatureLevel
from pixloc_ros.geometry.camera import Camera

# Of the packaged networks: they were trained at 528 px, and see farther in a smaller image.
MAX_SIDE_PX = 800
SIZES_KEPT = 2  # of images; each holds the activations of its graph
WARM_UP_RUNS = 3  # before a capture, so that libraries have chosen and allocated

Precision = Literal["auto", "float32", "bfloat16", "float64"]
Captured = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class FeaturePyramid:
    """Levels of one image, coarse to fine. scale: network pixels per image pixel, (x, y)."""

    levels: tuple[FeatureLevel, ...]
    scale: tuple[float, float]

    @property
    def confidences(self) -> tuple[Tensor, ...]:
        """Confidence maps (H, W), coarse to fine."""
        return tuple(level.rows[:, -1].view(level.height, level.width) for level in self.levels)

    def camera(self, camera: Camera, level: FeatureLevel) -> Camera:
        """The camera of the image as the camera of one level's map."""
        scaled = camera.scale([s / level.stride for s in self.scale])
        return replace(scaled, size=level.clip(scaled.size))

    def sample(self, pixels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Features (N, C) of unit norm, confidences (N,), validity (N,) at image pixels (N, 2)."""
        return [self._sample_level(level, pixels) for level in self.levels]

    def _sample_level(self, level: FeatureLevel, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factor = torch.tensor(self.scale, dtype=pixels.dtype, device=pixels.device) / level.stride
        at = (pixels + 0.5) * factor - 0.5
        size = level.clip(level.image_size.to(at) / level.stride)
        valid = ((at >= 0) & (at <= size - 1)).all(-1)
        return *BILINEAR.unit_features(level, at.to(level.rows)), valid


class FeatureExtractor:
    """Runs the network on one image at a time, on one device.

    precision is that of the network on a CPU; a GPU uses float16. Features are always float32.
    """

    def __init__(
        self,
        weights_name: str = "compact_seed",
        device: str = "cpu",
        max_side_px: int = MAX_SIDE_PX,
        precision: Precision = "float32",
    ):
        self.weights_name = weights_name
        loaded = weights.load(weights_name)
        self.model_id, self.sha256 = loaded.model_id, loaded.sha256
        self.architecture = loaded.network.architecture
        self.strides, self.dims = self.architecture.strides, self.architecture.dims
        self.device = torch.device(device)
        self.max_side_px = max_side_px
        self.damping = damping(loaded.network.theta.detach()).to(self.device)
        exact = self.architecture.as_published
        self.network = fused(loaded.network, self.device, "float32" if exact else precision)
        if precision == "float64":  # to compare results without rounding
            self.network = self.network.double()
        self.dtype = next(self.network.parameters()).dtype
        on_gpu = self.device.type == "cuda"
        self.forward = CapturedNetwork(self.network) if on_gpu else self.network

    @torch.inference_mode()
    def extract(self, image_rgb: NDArray[np.uint8]) -> FeaturePyramid:
        """The pyramid of an image (H, W, 3); larger ones are reduced to max_side_px first."""
        image, scale = self._reduce(image_rgb)
        height, width = image.shape[:2]
        # Before the network: on a GPU this waits for what is enqueued.
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        packed = self.forward(self._to_tensor(image).to(self.dtype))
        levels = [
            level_of(
                maps.to(torch.promote_types(maps.dtype, torch.float32)),
                stride,
                size,
                self.architecture.as_published,
            )
            for maps, stride in zip(packed, self.strides, strict=True)
        ]
        return FeaturePyramid(tuple(levels), scale)

    def _reduce(self, image: NDArray[np.uint8]) -> tuple[NDArray, tuple[float, float]]:
        height, width = image.shape[:2]
        factor = self.max_side_px / max(height, width)
        if factor >= 1:
            return image, (1.0, 1.0)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        # The rounded size decides, per axis: not the factor that was asked for.
        scale = (size[0] / width, size[1] / height)
        if self.architecture.as_published:
            return cv2.resize(image.astype(np.float32), size), scale
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale

    def _to_tensor(self, image: NDArray) -> Tensor:
        pixels = upload(torch.from_numpy(np.ascontiguousarray(image)), self.device)
        x = pixels.permute(2, 0, 1)[None].float().div(255)
        pad = [self._padding(side) for side in (image.shape[1], image.shape[0])]
        x = F.pad(x, (0, pad[0], 0, pad[1]), mode="replicate")
        return x.contiguous(memory_format=torch.channels_last)

    def _padding(self, side_px: int) -> int:
        least = 2 * self.strides[0]  # a map needs two pixels for its bilinear patch
        return max(-side_px % self.architecture.size_multiple, least - side_px)


def level_of(maps: Tensor, stride: int, image_size: Tensor, with_norms: bool) -> FeatureLevel:
    """The level that a network's packed maps (B, C + 1, H, W) of images of one size stand for."""
    features, confidence = unpack(maps)
    rows = torch.cat([features, confidence], 1).permute(0, 2, 3, 1).flatten(0, 2)
    norms = maps[:, :-1].norm(dim=1).flatten() if with_norms else None
    height, width = maps.shape[-2:]
    return FeatureLevel(rows.contiguous(), height, width, stride, image_size, norms)


def upload(image: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, so that the call returns at once."""
    if device.type == "cuda":
        image = image.pin_memory()
    return image.to(device, non_blocking=True)


def fused(network: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """The network for inference: batch norms folded into convolutions, channels last.

    Both together halve the time on a CPU, and bfloat16 halves it again where the CPU has it.
    """
    network = fuse(network).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return network.bfloat16() if wanted and device.type == "cpu" else network


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
