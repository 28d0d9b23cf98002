"""From an image to a pyramid of features and confidences, and how points sample it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.features import compact, weights
from pixloc_ros.features.device import CapturedNetwork, Precision, fused, upload
from pixloc_ros.geometry.camera import Camera

# Of the packaged networks: they were trained at 528 px, and see farther in a smaller image.
MAX_SIDE_PX = 800


@dataclass(frozen=True, slots=True)
class FeatureLevel:
    """One level: a map whose rows are pixels, ready to be gathered.

    The maps of B images may lie one after the other: image b of them is then read at pixels[b].
    """

    rows: Tensor  # (B * H * W, C + 1): unit feature and confidence
    height: int
    width: int
    stride: int
    image_size: Tensor  # (2,) width and height of the network's image, without padding
    norms: Tensor | None = None  # (B * H * W,) of the raw features, where references need them

    def clip(self, size: Tensor) -> Tensor:
        """Width and height (..., 2) of an image at this stride, as far as the map covers it.

        Pooling may drop the last rows and columns: what lies there is not in the map.
        """
        width, height = size.unbind(-1)
        return torch.stack([width.clamp(max=self.width), height.clamp(max=self.height)], -1)

    def corners(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The four map pixels around each point, and the position within the cell.

        pixels: (..., 2) in pixels of this level. Returns rows (..., 4, C + 1) in the order
        top-left, top-right, bottom-left, bottom-right, and the fraction (..., 2) in 0..1.
        """
        return self.neighbours(pixels, 2)

    def neighbours(self, pixels: Tensor, taps: int) -> tuple[Tensor, Tensor]:
        """As `corners`, with taps x taps map pixels (..., taps^2, C + 1) around each point.

        Beyond the border the map is continued by its edge.
        """
        index, fraction = self.index(pixels, taps)
        rows = self.rows.index_select(0, index.flatten())
        return rows.unflatten(0, index.shape), fraction

    def sample(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C) of unit norm and confidences (N,) at pixels (N, 2) of this level."""
        index, fraction = self.index(pixels, 2)
        corners, weights = self.rows[index], bilinear_weights(fraction)
        confidence = (weights * corners[..., -1]).sum(-1)
        if self.norms is not None:  # interpolated as it was, then normalised
            weights = weights * self.norms[index]
        features = (weights[..., None, :] @ corners[..., :-1])[..., 0, :]
        return F.normalize(features, dim=-1), confidence

    def index(self, pixels: Tensor, taps: int) -> tuple[Tensor, Tensor]:
        """Row numbers (..., taps^2) of the neighbours, and the position within the cell."""
        last = pixels.new_tensor([self.width - 1, self.height - 1])
        pixels = pixels.nan_to_num()
        base = torch.minimum(pixels.floor().clamp(min=0), last - 1)
        fraction = (pixels - base).clamp(0, 1)
        if taps == 2:
            first = (base[..., 1] * self.width + base[..., 0]).long()
            offsets = first.new_tensor([0, 1, self.width, self.width + 1])
            return self._of_own_image(first[..., None] + offsets), fraction
        steps = torch.arange(taps, device=pixels.device) - (taps // 2 - 1)
        x = (base[..., :1].long() + steps).clamp(0, self.width - 1)
        y = (base[..., 1:].long() + steps).clamp(0, self.height - 1)
        index = (y[..., :, None] * self.width + x[..., None, :]).flatten(-2)
        return self._of_own_image(index), fraction

    def _of_own_image(self, index: Tensor) -> Tensor:
        """Row numbers (B, N, taps^2) from those within each image."""
        images = len(self.rows) // (self.height * self.width)
        if images == 1:
            return index
        first = torch.arange(images, device=index.device) * (self.height * self.width)
        return index + first[:, None, None]


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
        return *level.sample(at.to(level.rows)), valid


def bilinear_weights(fraction: Tensor) -> Tensor:
    """Weights (..., 4) of the four corners at a fraction (..., 2) of the cell."""
    x, y = fraction.unbind(-1)
    return torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)


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
        self.damping = compact.damping(loaded.network.theta.detach()).to(self.device)
        exact = self.architecture.as_published
        self.network = fused(loaded.network, self.device, "float32" if exact else precision)
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
            level_of(maps.float(), stride, size, self.architecture.as_published)
            for maps, stride in zip(packed, self.strides, strict=True)
        ]
        return FeaturePyramid(tuple(levels), scale)

    def _reduce(self, image: NDArray[np.uint8]) -> tuple[NDArray, tuple[float, float]]:
        height, width = image.shape[:2]
        factor = self.max_side_px / max(height, width)
        if factor >= 1:
            return image, (1.0, 1.0)
        size = (round(width * factor), round(height * factor))
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
    features, confidence = compact.unpack(maps)
    rows = torch.cat([features, confidence], 1).permute(0, 2, 3, 1).flatten(0, 2)
    norms = maps[:, :-1].norm(dim=1).flatten() if with_norms else None
    height, width = maps.shape[-2:]
    return FeatureLevel(rows.contiguous(), height, width, stride, image_size, norms)
