"""Photometric augmentation, in the order in which light travels: scene, lens, camera."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects import camera, scene

Effect = Callable[[Tensor, AugmentationConfig, RandomDraws], Tensor]

# Names are those of the probabilities in AugmentationConfig.
EFFECTS: dict[str, Effect] = {
    "illumination": scene.illumination,
    "shadows": scene.shadows,
    "snow": scene.snow,
    "fog": scene.fog,
    "night": scene.night,
    "occluders": camera.occluders,
    "rain": scene.rain,
    "motion_blur": camera.motion_blur,
    "defocus": camera.defocus,
    "soft": camera.soft,
    "tone": camera.tone,
    "colour": camera.colour,
    "noise": camera.noise,
}


def augment(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Return copies of images (B, 3, H, W) in 0..1, each changed at random, rounded to 8 bits."""
    if not config.enabled:
        return images
    out = images.clone()
    for name, effect in EFFECTS.items():
        index = draws.chosen(len(out), getattr(config, name))
        if len(index):
            out[index] = effect(out[index], config, draws).clamp(0, 1)
    return torch.round(out * 255) / 255
