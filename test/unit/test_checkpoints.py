"""The published networks and their checkpoints: known outputs, and files that must be refused."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from helpers.published import tensors, write_checkpoint
from helpers.wall import CAMERA as WALL_CAMERA
from helpers.wall import write_dataset
from pixloc_ros.cli.map import app as map_cli
from pixloc_ros.config import from_flat
from pixloc_ros.errors import WeightsError
from pixloc_ros.features import weights
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.features.vgg import vgg16, vgg19
from pixloc_ros.features.weights import read_checkpoint
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_image
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, PosePrior


@pytest.fixture(scope="module", params=[("megadepth", vgg19), ("cmu", vgg16)])
def checkpoint(request, tmp_path_factory) -> tuple[str, Path]:
    """Name of the data it was trained on, and a file like the official one."""
    name, make = request.param
    return name, write_checkpoint(tmp_path_factory.mktemp(name) / "checkpoint_best.tar", make())


@pytest.fixture(scope="module")
def official(checkpoint: tuple[str, Path], parity: Path) -> tuple[FeatureExtractor, dict]:
    """An extractor that has loaded a checkpoint, and the outputs of the reference with it."""
    name, path = checkpoint
    return FeatureExtractor(str(path)), tensors(parity / f"unet_pixloc_{name}_small.npz")


def tolerance(known: dict, level: int) -> float:
    """For features of a level, whose standard deviation is about 1.4.

    Ten times what float32 was off from float64 in the reference: 7e-6 to 2e-5.
    """
    return 10 * float(known[f"maxabs_f32_vs_f64_{level}"])


@pytest.mark.slow
def test_the_network_of_a_checkpoint(official: tuple[FeatureExtractor, dict]) -> None:
    extractor, known = official
    assert (extractor.strides, extractor.dims) == ((16, 4, 1), (128, 128, 32))
    torch.testing.assert_close(extractor.damping, known["lambda"].flip(0), rtol=3e-5, atol=0)
    pyramid = extractor.extract(known["image_u8"].numpy())
    for level, n, step in zip(pyramid.levels, (2, 1, 0), (1, 4, 8), strict=True):
        raw, confidence = maps_of(level, step)
        close = {"atol": tolerance(known, n), "rtol": 0}
        torch.testing.assert_close(raw[:, ::4], known[f"feat{n}_s{step}"], **close)
        torch.testing.assert_close(confidence, known[f"conf{n}_s{step}"], **close)


@pytest.mark.slow
def test_the_network_drops_odd_rows_and_columns(official: tuple[FeatureExtractor, dict]) -> None:
    extractor, known = official
    pyramid = extractor.extract(known["image_u8"].numpy()[:187, :251])
    for level, n, step in zip(pyramid.levels, (2, 1, 0), (1, 8, 8), strict=True):
        assert [level.height, level.width] == known[f"odd_shape{n}"].tolist()[2:]
        raw, confidence = maps_of(level, step)
        close = {"atol": tolerance(known, n), "rtol": 0}
        torch.testing.assert_close(raw[:, ::4], known[f"odd_sample{n}"], **close)
        torch.testing.assert_close(confidence, known[f"odd_conf_sample{n}"], **close)
        # What the map has lost is not in view.
        camera = Camera.create("PINHOLE", (251, 187), (100, 100), (125, 93))
        assert pyramid.camera(camera, level).size.tolist() <= [level.width, level.height]
    assert not pyramid.sample(torch.tensor([[100.0, 180.0]]))[-1][2].any()


@pytest.mark.slow
def test_images_smaller_than_a_stride_are_padded(official: tuple[FeatureExtractor, dict]) -> None:
    extractor, known = official
    pyramid = extractor.extract(known["image_u8"].numpy()[:20, :10])
    assert [(level.height, level.width) for level in pyramid.levels] == [(2, 2), (8, 8), (32, 32)]
    _, _, valid = pyramid.sample(torch.tensor([[5.0, 10.0], [12.0, 10.0]]))[-1]
    assert valid.tolist() == [True, False]


@pytest.mark.slow
def test_references_are_sampled_before_they_are_normalised(official) -> None:
    extractor, known = official
    pyramid = extractor.extract(known["image_u8"].numpy())
    pixels = torch.tensor([[40.3, 77.9], [101.5, 20.25]])
    for level, (features, confidence, valid) in zip(
        pyramid.levels, pyramid.sample(pixels), strict=True
    ):
        raw, confidences = maps_of(level, 1)
        at = (pixels + 0.5) / level.stride - 0.5
        grid = 2 * at / torch.tensor([level.width - 1, level.height - 1]) - 1
        expected = [
            F.grid_sample(m, grid[None, None], align_corners=True)[0, :, 0].T
            for m in (raw, confidences)
        ]
        assert valid.all()
        torch.testing.assert_close(features, F.normalize(expected[0], dim=-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(confidence, expected[1][:, 0], atol=1e-5, rtol=0)


def small_checkpoint(path: Path, **changes: object) -> Path:
    torch.save({"model": {"extractor.encoder.0.0.bias": torch.zeros(64)}} | changes, path)
    return path


def test_a_checkpoint_of_another_network_lists_what_differs(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "checkpoint_best.tar", eval={"loss": np.float64(1.0)})
    differs = r"nearest is vgg\d+: 6\d missing \(extractor\."
    with pytest.raises(WeightsError, match=differs) as caught:
        weights.load(str(path))
    assert "\n" not in str(caught.value)
    state = {"extractor.encoder.0.0.bias": torch.zeros(64), "head.weight": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"1 unknown \(head\.weight\)"):
        weights.load(str(small_checkpoint(path, model=state)))


def test_checkpoints_written_with_numpy_1_are_read(tmp_path: Path) -> None:
    """numpy 2 has moved the function that its numbers name in a pickle."""
    new, old = (
        small_checkpoint(tmp_path / "new.tar", eval={"loss": np.float64(1.0)}),
        tmp_path / "o",
    )
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(b"numpy._core.multi", b"numpy.core.multi"))
    assert read_checkpoint(old).keys() == read_checkpoint(new).keys()


@pytest.mark.parametrize("kind", ["code", "truncated", "text", "list", "numbers"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, kind: str) -> None:
    path = small_checkpoint(tmp_path / "checkpoint_best.tar")
    if kind == "code":
        small_checkpoint(path, eval=zlib.crc32)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "list":
        torch.save([1, 2], path)
    else:
        torch.save({"model": {"epoch": 3}}, path)
    with pytest.raises(WeightsError, match=r"checkpoint_best\.tar") as caught:
        weights.load(str(path))
    assert "\n" not in str(caught.value)


def maps_of(level: FeatureLevel, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw features (1, C, h, w) and confidence (1, 1, h, w), every `step` pixels."""
    rows = torch.cat([level.rows[:, :-1] * level.norms[:, None], level.rows[:, -1:]], -1)
    maps = rows.view(level.height, level.width, -1)[::step, ::step].permute(2, 0, 1)[None]
    return maps[:, :-1], maps[:, -1:]


# --- a map and a pose with it ---


@pytest.mark.slow
def test_a_checkpoint_builds_a_map_and_localizes_on_it(checkpoint, tmp_path: Path) -> None:
    path = str(checkpoint[1])
    write_dataset(tmp_path, np.zeros(3))
    places = {"--colmap": "colmap", "--images": "images", "--output": "map"}
    arguments = [part for name, at in places.items() for part in (name, str(tmp_path / at))]
    built = CliRunner().invoke(map_cli, ["build", *arguments, "--weights", path])
    assert built.exit_code == 0, built.output
    map_ = Map.load(tmp_path / "map")
    assert (map_.metadata.strides, map_.metadata.dims) == ((16, 4, 1), (128, 128, 32))
    truth = map_.keyframe_T_map_cam[2]
    offset = np.array([0.05, 0.03, -0.1, 0.005, 0.01, -0.005])
    prior = PosePrior(perturb_base(truth, offset), diagonal(0.1, 1.0), "file", 0)
    image = read_image(tmp_path / "images" / "drive 1" / "002.png", WALL_CAMERA)
    for policy in ("reference", "pixloc_ros"):
        config = from_flat({"features.weights": path, "alignment.policy": policy})
        estimate = Localizer(config, map_).localize(Frame(image, WALL_CAMERA, 0, np.eye(4)), prior)
        # The verification was fitted to other weights: the pose is what counts here.
        assert estimate.candidate_T_map_base is not None, estimate.message
        assert estimate.ok or estimate.reason in ("low_contrast", "halves_disagree"), (
            estimate.message
        )
        assert se3.distance_m(estimate.candidate_T_map_base, truth) < 0.01
        assert se3.angle_deg(estimate.candidate_T_map_base, truth) < 0.1
