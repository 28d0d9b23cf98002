"""Checkpoints of the PixLoc release: torch.save files with the network under `model`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.errors import WeightsError

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
SCALARS = (np.bool_, np.int32, np.int64, np.float32, np.float64)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without running any code that the file may hold.

    Raises WeightsError for a file that is damaged, or holds more than tensors and numbers.
    """
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read weights {path}: {_reason(error)}") from None
    state = content.get("model", content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights {path} hold no network: a checkpoint has it under 'model'")
    return state


def _numpy_scalars() -> list[Allowed]:
    """What numpy's numbers are made of in a pickle: results of the evaluation, in a checkpoint."""
    scalar: Any = np.float64(0).__reduce__()[0]
    # Files written with numpy 1 name the function by its old place.
    names: list[Allowed] = [
        (scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")
    ]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in SCALARS)]


def _reason(error: Exception) -> str:
    blocked = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
    if blocked:
        return f"they hold a {blocked[1]}, and only tensors and numbers are loaded"
    return "no checkpoint of torch.save; is the file whole?"
