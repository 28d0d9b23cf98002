"""Maps: altered and signed anew, as a stranger would give them, and altered without."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from fuzz import samples
from fuzz.damage import FLOATS, INTEGERS, damaged_bytes, damaged_json
from fuzz.harness import Target
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError, PixlocError
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map

Tensors = dict[str, torch.Tensor]
EDITS = ("one", "one", "all", "cut", "double", "flat", "type", "empty", "absent")


@st.composite
def _altered_files(draw: DrawFn) -> dict[str, bytes]:
    """Files of the map that are not as they were: map.json, or the arrays of a shard."""
    folder = samples.map_folder()
    name = draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = (folder / name).read_bytes()
    if name == "map.json":
        return {name: draw(damaged_json([json.loads(content)]))}
    if draw(st.integers(0, 3)) == 0:
        return {name: draw(damaged_bytes([content]))}
    tensors = safetensors.torch.load(content)
    for _ in range(draw(st.integers(1, 3))):
        _edit(draw, tensors)
    return {name: safetensors.torch.save(tensors)}


def _edit(draw: DrawFn, tensors: Tensors) -> None:
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name].clone()
    match draw(st.sampled_from(EDITS)):
        case "one" if tensor.numel():
            tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = _value(draw, tensor)
        case "all":
            tensor.fill_(_value(draw, tensor))
        case "cut":
            tensor = tensor[: len(tensor) // 2].clone()
        case "double":
            tensor = torch.cat([tensor, tensor])
        case "flat":
            tensor = tensor.reshape(-1)
        case "type":
            kinds = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
            tensor = tensor.to(draw(st.sampled_from(kinds)))
        case "empty":
            tensor = tensor[:0].clone()
        case "absent":
            del tensors[name]
            return
    tensors[name] = tensor


def _value(draw: DrawFn, tensor: torch.Tensor) -> Any:
    if tensor.dtype.is_floating_point:
        value = draw(st.sampled_from(FLOATS))
        return torch.tensor(value, dtype=torch.float64).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return True
    limits = torch.iinfo(tensor.dtype)
    return int(np.clip(draw(st.sampled_from(INTEGERS)), limits.min, limits.max))


def _lay_out(files: dict[str, bytes], folder: Path) -> Path:
    """The map with its altered files."""
    shutil.copytree(samples.map_folder(), folder / "map")
    for name, content in files.items():
        (folder / "map" / name).write_bytes(content)
    return folder / "map"


def _sign(folder: Path) -> None:
    """Make the hashes right, as whoever forges a map would."""
    path = folder / "map.json"
    try:
        content = json.loads(path.read_text())
        files = content["files"]
        for name in files:
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for tile in content["tiles"]:
            tile["bytes"] = (folder / tile["file"]).stat().st_size
        content.pop("sha256")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        content["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
        path.write_text(json.dumps(content))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        pass  # nothing to sign


def _use(files: dict[str, bytes], folder: Path) -> None:
    """What a node and `pixloc map verify` do with a map: what verify calls sound can be used."""
    where = _lay_out(files, folder)
    _sign(where)
    problems = find_problems(where)
    frame, prior = samples.query()
    try:
        localizer = Localizer(Config(threads=1), Map.load(where))
    except PixlocError as error:
        if not problems and "weights" not in str(error):
            raise ValueError("a map that was called sound is refused") from error
        raise
    try:
        for priors in (prior, None):
            estimate = localizer.localize(frame, priors)
            assert not estimate.ok or np.isfinite(estimate.T_map_base).all(), problems
    finally:
        localizer.map.close()


def _open_unsigned(files: dict[str, bytes], folder: Path) -> None:
    """An altered map is never taken for the one that was built, whatever was altered."""
    where = _lay_out(files, folder)
    before = {p.name: p.read_bytes() for p in samples.map_folder().iterdir()}
    if all(before[name] == content for name, content in files.items()):
        return
    if "map.json" in files and _same_json(before["map.json"], files["map.json"]):
        return
    map_ = Map.load(where)
    refused = map_.tiles.refused
    map_.close()
    assert refused, "an altered map was accepted"
    raise MapError(f"refused: {refused}")


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


TARGETS = [
    Target("map signed anew", _altered_files, _use, quick=12),
    Target("map altered", _altered_files, _open_unsigned, quick=40),
]
