"""Run a network of `pixloc export` by onnxruntime instead of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pixloc_ros.errors import ConfigError, WeightsError
from pixloc_ros.features.architecture import Architecture
from pixloc_ros.features.weights import find

SUFFIX = ".onnx"
INPUT = "image"  # (1, 3, H, W) RGB in 0..1
Triple = tuple[int, int, int]


class NetworkCard(BaseModel):
    """The description of an exported network, stored as JSON in its file's metadata."""

    model_config = ConfigDict(frozen=True)

    weights: str
    sha256: str  # of the weights, as maps record it
    architecture: str
    strides: Triple  # coarse to fine
    dims: Triple
    size_multiple: int
    as_published: bool
    packing: str  # for people
    damping: list[list[float]]  # per level and pose parameter

    @classmethod
    def read(cls, properties: Mapping[str, str], path: Path) -> NetworkCard:
        """Read the card in a file's metadata. Raises WeightsError if it is missing or invalid."""
        try:
            values = {name: json.loads(properties[name]) for name in cls.model_fields}
            return cls.model_validate(values)
        except (KeyError, ValueError):
            raise WeightsError(
                f"{path} lacks the metadata that this version of `pixloc export` writes: export "
                "the network again"
            ) from None

    def properties(self) -> dict[str, str]:
        """Return the metadata to store in a file."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}

    @property
    def output_names(self) -> list[str]:
        """Names of the packed maps, coarse to fine."""
        return [f"stride{stride}" for stride in self.strides]


class ExportedNetwork:
    """Runs the network of an ONNX file in float32, on a CPU or with onnxruntime's GPU providers.

    It uses as many threads as torch does. Raises WeightsError for a file that `pixloc export` did
    not write, and ConfigError if onnxruntime or the provider is missing.
    """

    dtype = torch.float32

    def __init__(self, file: str, device: torch.device, tensorrt: bool = False):
        self._library = _library()
        self.runtime = f"onnxruntime {self._library.__version__}"
        self._path = find(file)
        self._providers = _providers(self._library, device, self._path, tensorrt)
        self._device = device
        self._sessions: dict[int, Any] = {}  # by number of threads
        session = self._session()
        card = NetworkCard.read(session.get_modelmeta().custom_metadata_map, self._path)
        self.model_id, self.sha256 = card.weights, card.sha256
        self.architecture = Architecture(
            card.architecture, card.strides, card.dims, card.size_multiple, card.as_published
        )
        self.damping = torch.tensor(card.damping, device=device)
        self._outputs = card.output_names
        self._sides = session.get_inputs()[0].shape[2:]  # height, width; strings if they are free

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the packed maps, coarse to fine, of an image (1, 3, H, W) float32.

        Raises ConfigError if the file is for images of another size.
        """
        self._check_size(image)
        pixels = image.contiguous().cpu().numpy()
        packed = self._session().run(self._outputs, {INPUT: pixels})
        return tuple(torch.from_numpy(maps).to(self._device) for maps in packed)

    def _session(self) -> Any:
        threads = torch.get_num_threads()
        if threads not in self._sessions:
            self._sessions[threads] = self._open(threads)
        return self._sessions[threads]

    def _open(self, threads: int) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning idle threads would take time from other programs: see common/process.py.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        try:
            return self._library.InferenceSession(
                self._path, options, providers=list(self._providers.items())
            )
        except Exception as error:  # its exceptions have no common base
            raise WeightsError(f"onnxruntime cannot load {self._path}: {error}") from None

    def _check_size(self, image: Tensor) -> None:
        wanted = [fixed if isinstance(fixed, int) else 0 for fixed in self._sides]
        height, width = image.shape[2:]
        if any(fixed not in (0, side) for fixed, side in zip(wanted, (height, width), strict=True)):
            raise ConfigError(
                f"{self._path} is for images of {wanted[1]}x{wanted[0]} pixels, these take "
                f"{width}x{height}: export it with --size {width}x{height}, or without"
            )


def is_exported(weights_name: str) -> bool:
    """Return whether the weights are an ONNX file."""
    return Path(weights_name).suffix == SUFFIX


def _providers(
    library: ModuleType, device: torch.device, path: Path, tensorrt: bool
) -> dict[str, dict[str, Any]]:
    """Return providers and their options; each layer runs on the first one that supports it."""
    if device.type == "cpu" and tensorrt:
        raise ConfigError("features.backend=tensorrt needs a GPU: set device=cuda")
    wanted: dict[str, dict[str, Any]] = {}
    if tensorrt:
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(path.parent)}
        wanted["TensorrtExecutionProvider"] = {"trt_fp16_enable": True, **cache}
    if device.type == "cuda":
        wanted["CUDAExecutionProvider"] = {"device_id": device.index or 0}
    wanted["CPUExecutionProvider"] = {}
    # onnxruntime itself would silently fall back to the CPU.
    if missing := wanted.keys() - set(library.get_available_providers()):
        raise ConfigError(
            f"this onnxruntime has no {' and no '.join(sorted(missing))}: install onnxruntime-gpu "
            "or NVIDIA's build for the JetPack at hand, or set device=cpu"
        )
    return wanted


def _library() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError(
            "an exported network needs onnxruntime: pip install 'pixloc_ros[onnxruntime]'"
        ) from None
    return onnxruntime
