"""Network weights by name or by path: checked, never downloaded.

A weights file `NAME.safetensors` has a `NAME.json` beside it with its SHA-256 and its licence.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pixloc_ros.errors import WeightsError
from pixloc_ros.features.compact import CompactNet

PACKAGED = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    network: CompactNet  # float32, eval mode
    model_id: str
    sha256: str


def available() -> list[str]:
    """Names of the packaged weights."""
    return sorted(path.stem for path in PACKAGED.glob("*.safetensors"))


def load(name_or_path: str) -> LoadedWeights:
    """Load packaged weights by name, or any `.safetensors` file of the compact network.

    Raises WeightsError when the file is absent, altered, or of another architecture.
    """
    path = _find(name_or_path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    _check_hash(path, sha256)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read weights {path}: {error}; is the file whole?") from None
    network = CompactNet()
    _check_shapes(path, state, network.state_dict())
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return LoadedWeights(network.eval(), path.stem, sha256)


def _find(name_or_path: str) -> Path:
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
    expected = json.loads(card.read_text()).get("sha256")
    if expected != sha256:
        raise WeightsError(
            f"weights {path} have SHA-256 {sha256[:12]}..., {card.name} says "
            f"{str(expected)[:12]}...: the file was altered, install it again"
        )


def _check_shapes(
    path: Path, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - state.keys() - counters)
    unknown = sorted(state.keys() - expected.keys())
    shapes = [n for n in expected.keys() & state.keys() if expected[n].shape != state[n].shape]
    found = [("missing", missing), ("unknown", unknown), ("of another shape", sorted(shapes))]
    wrong = [f"{len(names)} {what} ({names[0]}, ...)" for what, names in found if names]
    if wrong:
        raise WeightsError(f"weights {path} are not of the compact network: {'; '.join(wrong)}")
