"""Load network weights by name or path: always checked, never downloaded.

A weights file `NAME.safetensors` has a `NAME.json` beside it with its SHA-256 and its licence. A
file with any other suffix is taken for a checkpoint of the PixLoc release. The names of the tensors
tell which architecture they belong to.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixloc_ros.common.foreign_files import read_json
from pixloc_ros.errors import WeightsError
from pixloc_ros.features.compact import CompactNet, FastNet
from pixloc_ros.features.vgg import VggNet, vgg16, vgg19

PACKAGED = Path(__file__).resolve().parent.parent / "weights"
Network = CompactNet | FastNet | VggNet
NETWORKS: dict[str, Callable[[], Network]] = {
    "compact": CompactNet,
    "fast": FastNet,
    "vgg16": vgg16,
    "vgg19": vgg19,
}
NAMED_KEYS = 4  # tensor names listed per kind of difference in an error message

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
SCALARS = (np.bool_, np.int32, np.int64, np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A network with its weights, and the weights' identity."""

    network: Network  # float32, eval mode
    model_id: str
    sha256: str


def available() -> list[str]:
    """Return the names of the packaged weights."""
    return sorted(path.stem for path in PACKAGED.glob("*.safetensors"))


def build(architecture: str) -> Network:
    """Build a network with random weights, by its architecture's name. Raises WeightsError."""
    if architecture not in NETWORKS:
        raise WeightsError(f"no network '{architecture}': there are {', '.join(NETWORKS)}")
    return NETWORKS[architecture]()


def load(name_or_path: str) -> LoadedWeights:
    """Load packaged weights by name, any `.safetensors` file, or a `checkpoint_best.tar`.

    Raises WeightsError if the file is missing, altered, or of another architecture.
    """
    path = find(name_or_path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _check_hash(path, sha256)
    state = {name: value.float() for name, value in _read(path).items()}
    broken = {name for name, value in state.items() if not value.isfinite().all()}
    if broken:
        raise WeightsError(
            f"weights {path} hold values that are not finite ({_some(broken)}): export them again"
        )
    network = build(_most_alike(state))
    _check_shapes(path, state, network)
    network.load_state_dict(state, strict=False)
    return LoadedWeights(network.eval(), path.stem, sha256)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read weights {path}: {error}; is the file whole?") from None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint of torch.save, without running any code in it.

    Checkpoints of the PixLoc release have it under `model`. Raises WeightsError for a file that is
    damaged, or holds more than tensors and numbers.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_scalars()):
            warnings.simplefilter("ignore")  # torch's, of a pickle's protocol: the error says it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises all kinds for a malicious or broken pickle
        raise WeightsError(f"cannot read weights {path}: {_reason(error)}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not _is_state(state):
        raise WeightsError(f"weights {path} hold no network: a checkpoint has it under 'model'")
    return state


def _is_state(content: dict[Any, Any]) -> bool:
    """Return whether the content is not empty and all of it are named tensors."""
    named = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    return named and bool(content)


def _numpy_scalars() -> list[Allowed]:
    """Return what a pickle needs for numpy numbers: checkpoints may hold evaluation results."""
    scalar: Any = np.float64(0).__reduce__()[0]
    # Files written with numpy 1 refer to the function's old module.
    names: list[Allowed] = [
        (scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")
    ]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in SCALARS)]


def _reason(error: Exception) -> str:
    blocked = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
    if blocked:
        return f"they hold a {blocked[1]}, and only tensors and numbers are loaded"
    return "no checkpoint of torch.save; is the file whole?"


def _most_alike(state: dict[str, Tensor]) -> str:
    """Return the architecture that has most tensor names in common with the state dict."""

    def unlike(architecture: str) -> tuple[int, int]:
        names = _names_of(architecture)
        return -len(state.keys() & names), len(state.keys() ^ names)

    return min(NETWORKS, key=unlike)


@cache
def _names_of(architecture: str) -> frozenset[str]:
    """Return the tensor names of an architecture; cached, since building it takes longest."""
    with torch.device("meta"):  # no memory
        return frozenset(build(architecture).state_dict())


def find(name_or_path: str) -> Path:
    """Return the file of packaged weights, or the one at a path. Raises WeightsError if missing."""
    packaged = PACKAGED / f"{name_or_path}.safetensors"
    for path in (packaged, Path(name_or_path).expanduser()):
        if path.is_file():
            return path
    names = ", ".join(available())
    raise WeightsError(f"no weights '{name_or_path}': packaged are {names}; or give a file's path")


def _check_hash(path: Path, sha256: str) -> None:
    card = path.with_suffix(".json")
    if not card.is_file():
        return
    content = read_json(card, WeightsError)
    expected = content.get("sha256") if isinstance(content, dict) else None
    if expected != sha256:
        raise WeightsError(
            f"weights {path} have SHA-256 {sha256[:12]}..., {card.name} says "
            f"{str(expected)[:12]}...: the file was altered, install it again"
        )


def _check_shapes(path: Path, state: dict[str, Tensor], network: Network) -> None:
    expected = network.state_dict()
    common = expected.keys() & state.keys()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    found = {
        "missing": expected.keys() - state.keys() - counters,
        "unknown": state.keys() - expected.keys(),
        "of another shape": {name for name in common if expected[name].shape != state[name].shape},
    }
    wrong = [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]
    if wrong:
        name = network.architecture.name
        raise WeightsError(
            f"weights {path} match no known network; the nearest is {name}: {'; '.join(wrong)}"
        )


def _some(names: set[str]) -> str:
    listed = sorted(names)[:NAMED_KEYS]
    return ", ".join(listed + ["..."] * (len(names) > NAMED_KEYS))
