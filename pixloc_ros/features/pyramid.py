"""Compute a pyramid of features and confidences from an image, as fast as the device allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.common.device import open_device
from pixloc_ros.errors import ConfigError
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.exported_network import ExportedNetwork, is_exported
from pixloc_ros.features.sampling import BILINEAR, FeatureLevel
from pixloc_ros.features.torch_network import Precision, TorchNetwork
from pixloc_ros.geometry.camera import Camera

# For the packaged networks: trained at 528 px; in a smaller image they cover a wider context.
MAX_SIDE_PX = 800

LEAST_NORM = 1e-12  # of raw features; avoids division by zero where they vanish

Backend = Literal["auto", "torch", "onnxruntime", "tensorrt"]


class Network(Protocol):
    """Runs a network on one device, and describes its weights."""

    runtime: str  # library and version, because features differ in the last digits
    model_id: str
    sha256: str  # of the weights
    architecture: Architecture
    damping: Tensor  # (3, 6) per level and pose parameter
    dtype: torch.dtype

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map (1, 3, H, W) to packed maps (1, C + 1, H / stride, W / stride), coarse to fine."""


@dataclass(frozen=True, slots=True)
class FeaturePyramid:
    """The levels of one image, coarse to fine. scale: network pixels per image pixel, (x, y)."""

    levels: tuple[FeatureLevel, ...]
    scale: tuple[float, float]

    @property
    def confidences(self) -> tuple[Tensor, ...]:
        """Confidence maps (H, W), coarse to fine."""
        return tuple(level.rows[:, -1].view(level.height, level.width) for level in self.levels)

    def camera(self, camera: Camera, level: FeatureLevel) -> Camera:
        """Scale the image's camera to the map of one level."""
        scaled = camera.scale([s / level.stride for s in self.scale])
        return replace(scaled, size=level.clip(scaled.size))

    def sample(self, pixels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Read all levels at image pixels (N, 2).

        Returns, per level, unit features (N, C), confidences (N,) and validity (N,).
        """
        return [self._sample_level(level, pixels) for level in self.levels]

    def _sample_level(self, level: FeatureLevel, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factor = torch.tensor(self.scale, dtype=pixels.dtype, device=pixels.device) / level.stride
        at = (pixels + 0.5) * factor - 0.5
        size = level.clip(level.image_size.to(at) / level.stride)
        valid = ((at >= 0) & (at <= size - 1)).all(-1)
        return *BILINEAR.unit_features(level, at.to(level.rows)), valid


class FeatureExtractor:
    """Runs the network on one image at a time, on one device.

    weights_name: packaged weights, or the path of a weights file or of an exported network.
    precision: of torch on a CPU; a GPU uses float16. Features are always float32.

    Raises WeightsError and ConfigError as `open_network` does.
    """

    def __init__(
        self,
        weights_name: str = "compact_seed",
        device: str = "cpu",
        max_side_px: int = MAX_SIDE_PX,
        precision: Precision = "float32",
        backend: Backend = "auto",
    ):
        self.weights_name = weights_name
        self.device = open_device(device)
        self.max_side_px = max_side_px
        self.network = open_network(weights_name, self.device, precision, backend)
        self.model_id, self.sha256 = self.network.model_id, self.network.sha256
        self.architecture = self.network.architecture
        self.strides, self.dims = self.architecture.strides, self.architecture.dims
        self.damping = self.network.damping

    @torch.inference_mode()
    def extract(self, image_rgb: NDArray[np.uint8]) -> FeaturePyramid:
        """Return the pyramid of an image (H, W, 3) RGB.

        An image larger than max_side_px is reduced first.
        """
        image, scale = self._reduce(image_rgb)
        height, width = image.shape[:2]
        # Done before the network runs: on a GPU this waits for the work enqueued so far.
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        packed = self.network(self._to_tensor(image))
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
        # Per axis, the scale follows from the rounded size, not from the requested factor.
        scale = (size[0] / width, size[1] / height)
        if self.architecture.as_published:
            return cv2.resize(image.astype(np.float32), size), scale
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale

    def _to_tensor(self, image: NDArray) -> Tensor:
        below, right = (self._padding(side) for side in image.shape[:2])
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        pixels = upload(torch.from_numpy(image), self.device)
        return pixels.permute(2, 0, 1)[None].float().div(255)  # channels last, as the pixels are

    def _padding(self, side_px: int) -> int:
        least = 2 * self.strides[0]  # a bilinear patch needs two pixels of the coarsest map
        return max(-side_px % self.architecture.size_multiple, least - side_px)


def open_network(
    weights_name: str, device: torch.device, precision: Precision, backend: Backend
) -> Network:
    """Open a network with the library that runs its file. Raises WeightsError and ConfigError."""
    exported = is_exported(weights_name)
    if backend != "auto" and exported != (backend != "torch"):
        what = "runs weights" if backend == "torch" else "runs what `pixloc export` wrote (.onnx)"
        raise ConfigError(f"features.backend={backend} {what}: features.weights is {weights_name}")
    if exported:
        return ExportedNetwork(weights_name, device, tensorrt=backend == "tensorrt")
    return TorchNetwork(weights_name, device, precision)


def level_of(maps: Tensor, stride: int, image_size: Tensor, with_norms: bool) -> FeatureLevel:
    """Make a level of a network's packed maps (B, C + 1, H, W), of images of equal size."""
    raw = maps.permute(0, 2, 3, 1).flatten(0, 2)
    norms = raw[:, :-1].norm(dim=1)
    # Whole rows, though the confidence has no norm: a part of each takes twice the time.
    rows = (raw / norms[:, None].clamp(min=LEAST_NORM)).contiguous()
    rows[:, -1] = raw[:, -1].sigmoid()
    height, width = maps.shape[-2:]
    return FeatureLevel(rows, height, width, stride, image_size, norms if with_norms else None)


def upload(image: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; from pinned memory to a GPU, so that the call does not block."""
    if device.type == "cuda":
        image = image.pin_memory()
    return image.to(device, non_blocking=True)
