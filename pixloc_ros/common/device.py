"""The device to compute on."""

from __future__ import annotations

import torch

from pixloc_ros.errors import ConfigError


def open_device(name: str) -> torch.device:
    """Return a device. Raises ConfigError for one that torch does not have here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name}: expected cpu, cuda or cuda:N") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"device {name}: torch {torch.__version__} finds {count} GPUs here; use device cpu, or "
            "a CUDA build of torch and its driver"
        )
    return device
