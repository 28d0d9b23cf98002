"""Photometric augmentation in the order in which light travels: scene, lens, sensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixloc_ros.training.data_config import AugmentationConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.effects import lens, light, sensor, weather

Effect = Callable[[Tensor, AugmentationConfig, RandomDraws], Tensor]

# Names are those of the probabilities in AugmentationConfig.
EFFECTS: dict[str, Effect] = {
    "illumination": light.illumination,
    "shadows": light.shadows,
    "snow": weather.snow,
    "fog": weather.fog,
    "night": light.night,
    "occluders": sensor.occluders,
    "rain": weather.rain,
    "motion_blur": lens.motion_blur,
    "defocus": lens.defocus,
    "soft": lens.soft,
    "tone": sensor.tone,
    "colour": sensor.colour,
    "noise": sensor.noise,
}


def augment(images: Tensor, config: AugmentationConfig, draws: RandomDraws) -> Tensor:
    """Copies of images (B, 3, H, W) of range 0..1, each changed by its own draws, in 8 bits."""
    if not config.enabled:
        return images
    out = images.clone()
    for name, effect in EFFECTS.items():
        index = draws.chosen(len(out), getattr(config, name))
        if len(index):
            out[index] = effect(out[index], config, draws).clamp(0, 1)
    return torch.round(out * 255) / 255
