"""The network, its weights, and sampling: known outputs, and files that must be refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixloc_ros.errors import WeightsError
from pixloc_ros.features import weights
from pixloc_ros.features.compact import MEAN, STD
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.retrieval import describe
from pixloc_ros.training.model import (
    IMAGENET_PACKAGE,
    load_imagenet_encoder,
    read_imagenet_checkpoint,
)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor()


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return np.ascontiguousarray(np.kron(noise, np.ones((8, 8, 1), np.uint8)))


def test_features_are_those_the_weights_were_published_with(
    extractor, published_weights: Path
) -> None:
    known = np.load(published_weights / "compact_seed_check.npz")
    pyramid = extractor.extract(known["image_rgb_uint8"])
    for i, level in enumerate(pyramid.levels):
        shape = (level.height, level.width, -1)
        features = level.rows[:, :-1].view(shape).permute(2, 0, 1).numpy()
        np.testing.assert_allclose(features, known[f"feature_{i}"][0], atol=1e-3)
        np.testing.assert_allclose(
            pyramid.confidences[i].numpy(), known[f"confidence_{i}"][0, 0], atol=1e-3
        )
    np.testing.assert_allclose(extractor.damping.numpy(), known["damping"], rtol=1e-3)


@pytest.mark.parametrize("size", [(97, 131), (64, 64), (40, 200), (3000, 1), (1, 3000)])
def test_images_of_any_size_give_unit_features(extractor, size: tuple[int, int]) -> None:
    picture = texture(*(max(side, 40) for side in size))
    pyramid = extractor.extract(picture[: size[0], : size[1]])
    for level, dim in zip(pyramid.levels, extractor.dims, strict=True):
        assert level.rows.shape == (level.height * level.width, dim + 1)
        norms = level.rows[:, :-1].norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-4, rtol=0)


def test_a_reduced_image_samples_the_same_place(extractor) -> None:
    """The same scene at twice the size, reduced by the extractor, has the same features."""
    small = texture(128, 192)
    large = np.ascontiguousarray(np.kron(small, np.ones((2, 2, 1), np.uint8)))
    reduced = FeatureExtractor(max_side_px=192).extract(large)
    assert reduced.scale == (0.5, 0.5)
    pixels = torch.tensor([[40.3, 50.2], [100.0, 61.5]])
    for a, b in zip(
        extractor.extract(small).sample(pixels),
        reduced.sample((pixels + 0.5) * 2 - 0.5),
        strict=True,
    ):
        torch.testing.assert_close(a[0], b[0], atol=0.02, rtol=0)


def test_sampling_tells_what_lies_outside_the_image(extractor) -> None:
    pyramid: FeaturePyramid = extractor.extract(texture(70, 100)[:70, :100])
    pixels = torch.tensor([[50.0, 35.0], [-1.0, 35.0], [50.0, 69.6], [99.9, 2.0]])
    for _, _, valid in pyramid.sample(pixels):
        assert valid[0]
        assert not valid[1:].any()


def test_the_level_camera_projects_to_level_pixels(extractor) -> None:
    pyramid = extractor.extract(texture(96, 128))
    camera = Camera.create("PINHOLE", (128, 96), (100, 100), (63.5, 47.5))
    point = torch.tensor([[0.1, -0.2, 2.0]], dtype=torch.float64)
    pixel, _ = camera.project(point)
    for level in pyramid.levels:
        on_level, _ = pyramid.camera(camera, level).project(point)
        torch.testing.assert_close(on_level, (pixel + 0.5) / level.stride - 0.5)


@pytest.mark.parametrize("name", weights.available())
def test_every_packaged_network_tells_places_apart(name: str) -> None:
    """Features of a point in two pictures of it, one darker, are more alike than any others."""
    extractor = FeatureExtractor(name)
    image = texture(192, 256)
    darker = (image * 0.6).astype(np.uint8)
    pixels = torch.from_numpy(np.random.default_rng(1).uniform(30, 160, (40, 2))).float()
    bright, dark = (extractor.extract(each).sample(pixels) for each in (image, darker))
    for (a, _, _), (b, _, _) in zip(bright, dark, strict=True):
        assert (a @ b.T).argmax(1).eq(torch.arange(40)).float().mean() > 0.9
    assert describe(extractor.extract(image)).shape == describe(extractor.extract(darker)).shape


def test_bfloat16_changes_features_a_little(extractor) -> None:
    image = texture(96, 128)
    half = FeatureExtractor(precision="bfloat16").extract(image)
    for rough, exact in zip(half.levels, extractor.extract(image).levels, strict=True):
        assert rough.rows.dtype == torch.float32
        similarity = (rough.rows[:, :-1] * exact.rows[:, :-1]).sum(-1)
        assert 0.97 < similarity.mean() < 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", weights.available())
def test_packed_convolutions_compute_what_plain_ones_do(name: str, precision, monkeypatch) -> None:
    """For the size of the first image, for which they are packed, and for others.

    Both accumulate the same products in float32: unit features differ by 2e-6 where the order of
    the sums does, and not at all where bfloat16 rounds it away. The bound is five times that.
    """
    packed = FeatureExtractor(name, precision=precision)
    monkeypatch.setattr("pixloc_ros.features.torch_network.can_pack", lambda *_: False)
    plain = FeatureExtractor(name, precision=precision)
    for size in ((96, 128), (160, 96), (96, 128)):
        levels = (each.extract(texture(*size)).levels for each in (packed, plain))
        for found, expected in zip(*levels, strict=True):
            torch.testing.assert_close(found.rows, expected.rows, atol=1e-5, rtol=0)


def test_a_cpu_without_bfloat16_emulates_it_only_where_told_to() -> None:
    """In a program of its own, whose oneDNN sees a CPU of the kind that most laptops have."""
    program = """
import numpy as np
from pixloc_ros.features.pyramid import FeatureExtractor
for precision in ("auto", "bfloat16"):
    extractor = FeatureExtractor(precision=precision)
    extractor.extract(np.zeros((64, 96, 3), np.uint8))
    print(extractor.network.dtype)
"""
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["torch.float32", "torch.bfloat16"], done.stderr


# --- the encoder's checkpoint ---


def test_the_encoder_of_imagenet_is_the_trunk_tensor_by_tensor() -> None:
    pytest.importorskip(IMAGENET_PACKAGE, reason="it comes with the extra [train]")
    network = weights.build("fast")
    load_imagenet_encoder(network)
    checkpoint, encoder = read_imagenet_checkpoint(), network.enc.state_dict()
    left = {name for name in checkpoint if name not in encoder}
    assert all(name.startswith(("_conv_head.", "_bn1.", "_fc.")) for name in left)
    for name, value in encoder.items():
        assert torch.equal(value, checkpoint[name]), name


def test_the_encoder_of_imagenet_sees_what_its_norms_expect() -> None:
    """Means of channels over a picture go with the running means, layer by layer."""
    pytest.importorskip(IMAGENET_PACKAGE, reason="it comes with the extra [train]")
    network = weights.build("compact").eval()
    load_imagenet_encoder(network)
    correlations = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        means = torch.stack([inputs[0].mean((0, 2, 3)), norm.running_mean])
        correlations.append(float(torch.corrcoef(means)[0, 1]))

    for module in network.enc.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(compare)
    image = cv2.GaussianBlur(texture(192, 320), (0, 0), 3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        network.enc((pixels - MEAN) / STD)
    assert np.median(correlations) > 0.85


def test_networks_with_another_encoder_are_refused() -> None:
    with pytest.raises(WeightsError, match="begins from torchvision's checkpoint"):
        load_imagenet_encoder(weights.build("vgg16"))


# --- weights ---


def test_unknown_architectures_name_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="compact, fast"):
        weights.build("resnet")


def copy_of_seed(folder: Path) -> Path:
    for suffix in (".safetensors", ".json"):
        shutil.copy(weights.PACKAGED / f"compact_seed{suffix}", folder)
    return folder / "compact_seed.safetensors"


def test_weights_load_by_path(tmp_path: Path) -> None:
    by_path, by_name = weights.load(str(copy_of_seed(tmp_path))), weights.load("compact_seed")
    assert by_path.sha256 == by_name.sha256


def test_unknown_weights_name_the_packaged_ones() -> None:
    with pytest.raises(WeightsError, match="compact_seed"):
        weights.load("compact_sed")


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    path = copy_of_seed(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="altered"):
        weights.load(str(path))


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes((weights.PACKAGED / "compact_seed.safetensors").read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot read"):
        weights.load(str(path))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    state = load_file(weights.PACKAGED / "compact_seed.safetensors")
    state["heads.0.weight"] = state["heads.0.weight"][:5].clone()
    state["extra"] = torch.zeros(1)
    del state["theta"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"missing \(theta.*unknown \(extra.*heads\.0\.weight"):
        weights.load(str(tmp_path / "other.safetensors"))


def test_every_packaged_weights_file_has_a_card_with_its_licence() -> None:
    for name in weights.available():
        card = json.loads((weights.PACKAGED / f"{name}.json").read_text())
        assert card["licence"]
        assert (weights.PACKAGED / card["card"]).is_file()
