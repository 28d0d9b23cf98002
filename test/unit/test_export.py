"""Exported networks, as other runtimes read them and as the localizer runs them."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from pixloc_ros.cli.main import build
from pixloc_ros.config import from_flat
from pixloc_ros.errors import ConfigError, MapError, WeightsError
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.features.export import write_onnx
from pixloc_ros.features.pyramid import FeatureExtractor, level_of, open_network
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.feature_extraction import ImageTask, extract_features
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.types import PosePrior

NAMES = ("compact_seed", "fast")  # one of each packaged architecture


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of packaged networks, for images of any size."""
    folder = tmp_path_factory.mktemp("exported")
    files = {name: folder / f"{name} for a robot.onnx" for name in NAMES}
    for name, path in files.items():
        write_onnx(path, name)
    return files


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
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_gives_the_same_features_at_any_size(
    name: str, image_rgb: np.ndarray, exported: dict[str, Path]
) -> None:
    extractor = FeatureExtractor(name)
    for image in (image_rgb, np.ascontiguousarray(image_rgb[:96, 32:160])):
        expected = extractor.extract(image).levels
        for level, same in zip(run(exported[name], image), expected, strict=True):
            torch.testing.assert_close(level.rows, same.rows, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_extractor_takes_an_exported_network_as_it_takes_weights(
    name: str, image_rgb: np.ndarray, exported: dict[str, Path]
) -> None:
    ours, other = FeatureExtractor(name), FeatureExtractor(str(exported[name]))
    assert other.network.runtime.startswith("onnxruntime")
    assert (ours.model_id, ours.sha256) == (other.model_id, other.sha256)
    assert ours.architecture == other.architecture
    torch.testing.assert_close(ours.damping, other.damping, rtol=1e-6, atol=0)
    odd = np.ascontiguousarray(image_rgb[:101, :203])  # padded to what the network takes
    for level, same in zip(other.extract(odd).levels, ours.extract(odd).levels, strict=True):
        torch.testing.assert_close(level.rows, same.rows, atol=1e-3, rtol=0)
        assert level.image_size.equal(same.image_size)


@pytest.mark.slow
def test_a_map_of_torch_serves_the_exported_network_of_its_weights_and_no_other(
    street: Path, exported: dict[str, Path]
) -> None:
    """A frame's pose is the same within a millimetre."""
    values = {"map": str(street / "map"), "threads": 1, "features.precision": "float32"}
    on_robot = {"features.backend": "onnxruntime"} | values
    folder = street / "data" / "drive"
    drive = read_posed_images(folder / "meta.json", folder / "images")
    frame, T_map_base = next(posed_frames(drive, [len(drive.files) // 2]))
    off = np.array([0.3, -0.2, 0.05, *np.deg2rad([0.2, -0.3, 1.0])])
    T_prior = perturb_base(T_map_base, off)
    prior = PosePrior(T_prior, diagonal(0.4, 1.0), "test", frame.stamp_ns)
    expected, found = (
        Localizer(from_flat(each)).localize(frame, prior)
        for each in (values, on_robot | {"features.weights": str(exported["compact_seed"])})
    )
    assert expected.ok and found.ok
    assert se3.distance_m(expected.T_map_base, found.T_map_base) < 1e-3
    assert se3.angle_deg(expected.T_map_base, found.T_map_base) < 0.01
    assert found.wrong_probability == pytest.approx(expected.wrong_probability, rel=0.05)
    with pytest.raises(MapError, match=r"built with weights 'compact_seed' .* has 'fast'"):
        Localizer(from_flat(on_robot | {"features.weights": str(exported["fast"])}))


@pytest.mark.slow
def test_maps_are_built_with_exported_networks_too(street: Path, exported: dict[str, Path]) -> None:
    """What is stored of an image differs by float16's last digits, and is not mixed up."""
    file = min((street / "data" / "drive" / "images").iterdir())
    task = ImageTask(file, (320, 192), np.random.default_rng(0).uniform(20, 170, (50, 2)))
    ours, other = FeatureExtractor(), FeatureExtractor(str(exported["compact_seed"]))
    expected, found = (extract_features(task.read(), task, each) for each in (ours, other))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-3, err_msg=name)
    assert task.key(ours) != task.key(other)


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
    of_one_size = FeatureExtractor(str(path))
    of_one_size.extract(np.zeros((90, 150, 3), np.uint8))  # is padded to that size
    with pytest.raises(ConfigError, match=r"images of 160x96 pixels, these take 320x192: export"):
        of_one_size.extract(np.zeros((192, 320, 3), np.uint8))


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    with pytest.raises(ConfigError, match="multiples of 32"):
        write_onnx(path, "compact_seed", (640, 375))
    command = ["export", "no_such", "--onnx", str(path)]
    with pytest.raises(WeightsError, match="no_such"):
        CliRunner().invoke(build(), command, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_files_that_do_not_say_what_they_are_are_refused(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    anonymous, half = tmp_path / "anonymous.onnx", tmp_path / "half.onnx"
    model = onnx.load(exported["fast"])
    del model.metadata_props[:]
    onnx.save(model, anonymous)
    half.write_bytes(exported["fast"].read_bytes()[:100_000])
    for path, words in ((anonymous, "lacks the metadata"), (half, "onnxruntime cannot load")):
        with pytest.raises(WeightsError, match=words):
            FeatureExtractor(str(path))
    with pytest.raises(WeightsError, match="no weights"):
        FeatureExtractor(str(tmp_path / "absent.onnx"))


def test_what_the_machine_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.onnx"
    path.touch()
    providers = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers[-1:])
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    with pytest.raises(ConfigError, match="this onnxruntime has no CUDAExecutionProvider"):
        open_network(str(path), gpu, "auto", "onnxruntime")
    with pytest.raises(ConfigError, match="and no TensorrtExecutionProvider"):
        open_network(str(path), gpu, "auto", "tensorrt")
    with pytest.raises(ConfigError, match="tensorrt needs a GPU"):
        open_network(str(path), cpu, "auto", "tensorrt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'pixloc_ros\[onnxruntime\]'"):
        FeatureExtractor(str(path))


@pytest.mark.parametrize(
    ("backend", "name"), [("onnxruntime", "fast"), ("tensorrt", "fast"), ("torch", "fast.onnx")]
)
def test_a_backend_is_given_files_that_it_can_run(backend: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"features.backend={backend} runs .* is {name}"):
        FeatureExtractor(name, backend=backend)
