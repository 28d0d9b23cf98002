"""Write a network as an ONNX file, for runtimes such as TensorRT."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import torch

from pixloc_ros.errors import ConfigError
from pixloc_ros.features import weights
from pixloc_ros.features.architecture import Architecture, damping
from pixloc_ros.features.exported_network import INPUT, NetworkCard

OPSET = 17  # read by TensorRT 8.5 and later, so by that of JetPack 5.1
PACKING = "features, to be normalised along channels, then confidence, to be put through a sigmoid"


def write_onnx(path: Path, weights_name: str, size: tuple[int, int] | None = None) -> None:
    """Write the network of the named weights, as `FeatureExtractor` runs it in float32.

    size: width and height of its images; by default any multiple of `size_multiple` fits.

    Outputs `stride16`, `stride4`, ...: (1, C + 1, H / stride, W / stride), packed as the metadata
    describe. Raises WeightsError, and ConfigError for a size that the network cannot process.
    """
    onnx = _library()
    loaded = weights.load(weights_name)
    architecture, card = loaded.network.architecture, _card(loaded)
    width, height = size or (4 * architecture.strides[0], 2 * architecture.strides[0])
    _check_size(width, height, architecture)
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript and takes a minute instead of seconds.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            loaded.network,
            (torch.zeros(1, 3, height, width),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=card.output_names,
            dynamic_axes=None if size else _free_sides(card),
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, card.properties())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _free_sides(card: NetworkCard) -> dict[str, dict[int, str]]:
    sides = {INPUT: {2: "height", 3: "width"}}
    for name, stride in zip(card.output_names, card.strides, strict=True):
        sides[name] = {2: f"height / {stride}", 3: f"width / {stride}"}
    return sides


def _card(loaded: weights.LoadedWeights) -> NetworkCard:
    """Describe the network for the runtime that loads the file."""
    architecture = loaded.network.architecture
    return NetworkCard(
        weights=loaded.model_id,
        sha256=loaded.sha256,
        architecture=architecture.name,
        strides=architecture.strides,
        dims=architecture.dims,
        size_multiple=architecture.size_multiple,
        as_published=architecture.as_published,
        packing=PACKING,
        damping=damping(loaded.network.theta.detach()).tolist(),
    )


def _check_size(width: int, height: int, architecture: Architecture) -> None:
    multiple, least = architecture.size_multiple, 2 * architecture.strides[0]
    if min(width, height) < least or width % multiple or height % multiple:
        raise ConfigError(
            f"{width}x{height} is not a valid size for {architecture.name}: sides are multiples of "
            f"{multiple}, and at least {least}"
        )


def _library() -> ModuleType:
    try:
        import onnx
    except ModuleNotFoundError:
        raise ConfigError("export needs the library onnx: pip install 'pixloc_ros[onnx]'") from None
    return onnx
