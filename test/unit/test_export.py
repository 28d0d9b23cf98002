"""Exported networks, run by onnxruntime as a robot would run them."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from pixloc_ros.cli.main import build
from pixloc_ros.errors import ConfigError, WeightsError
from pixloc_ros.features import weights
from pixloc_ros.features.export import write_onnx
from pixloc_ros.features.pyramid import FeatureExtractor, level_of
from pixloc_ros.features.sampling import FeatureLevel


@pytest.fixture(scope="module")
def image_rgb(street: Path) -> np.ndarray:
    """(192, 320, 3), a view of the generated street."""
    file = min((street / "data" / "drive" / "images").iterdir())
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


def run(path: Path, image_rgb: np.ndarray) -> list[FeatureLevel]:
    """The levels, by what the file alone tells."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = (image_rgb.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    strides = json.loads(session.get_modelmeta().custom_metadata_map["strides"])
    packed = session.run([f"stride{stride}" for stride in strides], {"image": image})
    size = torch.tensor([image.shape[-1], image.shape[-2]])
    return [
        level_of(torch.from_numpy(maps), stride, size, with_norms=False)
        for maps, stride in zip(packed, strides, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", weights.available())
def test_an_exported_network_gives_the_same_features_at_any_size(
    name: str, image_rgb: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    write_onnx(path, name)
    extractor = FeatureExtractor(name)
    for image in (image_rgb, np.ascontiguousarray(image_rgb[:96, 32:160])):
        expected = extractor.extract(image).levels
        for exported, level in zip(run(path, image), expected, strict=True):
            torch.testing.assert_close(exported.rows, level.rows, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_command_writes_a_network_of_one_size_that_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "network.onnx"
    arguments = ["export", "compact_seed", "--onnx", str(path), "--size", "160x96"]
    assert CliRunner().invoke(build(), arguments, catch_exceptions=False).exit_code == 0
    model = onnx.load(path)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in shape] == [1, 3, 96, 160]
    said = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    extractor = FeatureExtractor("compact_seed")
    assert (said["weights"], said["sha256"]) == (extractor.model_id, extractor.sha256)
    assert (said["strides"], said["dims"]) == ([16, 4, 2], [128, 64, 32])
    np.testing.assert_allclose(said["damping"], extractor.damping.numpy(), rtol=1e-6)


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    with pytest.raises(ConfigError, match="multiples of 32"):
        write_onnx(path, "compact_seed", (640, 375))
    command = ["export", "no_such", "--onnx", str(path)]
    with pytest.raises(WeightsError, match="no_such"):
        CliRunner().invoke(build(), command, catch_exceptions=False)
    assert not list(tmp_path.iterdir())
