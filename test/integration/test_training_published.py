"""PixLoc's own training runs, made small: on trees in the official layouts, of the street."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers import benchmark_trees as trees
from helpers import boards
from pixloc_ros.errors import DataError, WeightsError
from pixloc_ros.features.vgg import VGG16, VggNet
from pixloc_ros.training.config import ModelConfig, TrainConfig, load
from pixloc_ros.training.data_config import MegaDepthConfig
from pixloc_ros.training.datasets import read_megadepth
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.feeding import DrawnBatch, draw
from pixloc_ros.training.initial_poses import poses_on_the_way
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.losses import mean_error_px
from pixloc_ros.training.model import initial_network
from pixloc_ros.training.sources import open_sources

CONFIGS = Path(__file__).parents[2] / "config" / "training"
ALONE = DistributedWorker(0, 1, torch.device("cpu"))
SMALL = {"batch": 1, "size": (64, 64), "log_every": 1, "device": "cpu"}
RATES = {"lr": 1e-3, "encoder_lr": 1e-4, "damping_lr": 1e-1, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def megadepth(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene, and D2-Net's file about it: paths are objects, and some are None."""
    root = tmp_path_factory.mktemp("megadepth")
    mapping, scene = street / "data" / "mapping", root / "Undistorted_SfM" / "0000"
    shutil.copytree(mapping / "images", scene / "images")
    shutil.copytree(mapping / "colmap", scene / "sparse")
    names = sorted(path.name for path in (scene / "images").iterdir())
    paths = np.array([None, *(f"Undistorted_SfM/0000/images/{name}" for name in names)], object)
    overlap = np.full((len(paths), len(paths)), -1.0)
    for i in range(1, len(names)):
        overlap[i, i + 1] = 0.5  # of each image and the next one, in one direction
    (root / "scene_info").mkdir()
    np.savez(root / "scene_info" / "0000.npz", image_paths=paths, overlap_matrix=overlap)
    return root


@pytest.fixture(scope="module")
def cmu(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.cmu(tmp_path_factory.mktemp("cmu"), trees.Street(street, queries=6))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file laid out like torchvision's VGG16, with random numbers."""
    torch.manual_seed(0)
    state, layer, c_in = {}, 0, 3
    for channels in VGG16:
        for c_out in channels:
            convolution = nn.Conv2d(c_in, c_out, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            state |= {f"features.{layer}.{k}": v for k, v in convolution.state_dict().items()}
            layer, c_in = layer + 2, c_out  # a ReLU between
        layer += 1  # a pooling
    state["classifier.0.weight"] = torch.zeros(8, 8)
    path = tmp_path_factory.mktemp("torchvision") / "vgg16-397923af.pth"
    torch.save(state, path)
    return path


def small(name: str, imagenet: Path, **data: Any) -> TrainConfig:
    """A configuration of the package for a small tree, with rates that show in a few steps."""
    content = load(CONFIGS / f"{name}.yaml").model_dump(mode="json")
    (source,) = content["data"]
    source |= {"points": 64, **data}
    content["lm"] |= {"iterations": 3, "border_px": 1}
    content["optimizer"] |= RATES
    content["validation"] = {"every": 0}
    content["model"] |= {"architecture": "vgg16", "imagenet_file": str(imagenet)}
    return TrainConfig.model_validate(content | SMALL)


def on_megadepth(megadepth: Path, imagenet: Path, **data: Any) -> TrainConfig:
    tree = {"path": str(megadepth), "scene_list": None, "min_side_px": 100}
    return small("paper_megadepth", imagenet, **tree, **data)


def drawn_from(config: TrainConfig) -> DrawnBatch:
    source = open_sources(config.data, config.size, "cpu", config.augmentation)
    return draw(source, config, ALONE, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["megadepth", "megadepth with depth maps", "cmu"])
def test_the_loss_of_a_pair_falls(name, megadepth, cmu, imagenet, tmp_path):
    config = on_megadepth(megadepth, imagenet)
    if name == "megadepth with depth maps":
        boards.write_megadepth(tmp_path, "0000", boards.SHOTS)
        config = on_megadepth(tmp_path, imagenet, depth=str(tmp_path / "MegaDepth_v1"))
    if name == "cmu":
        config = small("paper_cmu", imagenet, path=str(cmu), slices=[7])
    trainer = Trainer(config, ALONE, Path("unused"))
    drawn = drawn_from(config)
    losses = [trainer.step(drawn)["loss"] for _ in range(5)]
    assert min(losses[-2:]) < 0.85 * losses[0]


def test_pairs_are_those_of_d2_nets_scene_info(megadepth, tmp_path):
    """Its overlap is not symmetric; a file that is none of it is named."""
    config = MegaDepthConfig(
        path=megadepth, scene_info=megadepth / "scene_info", overlap=(0.4, 1.0), min_side_px=100
    )
    (scene,) = read_megadepth(config, Counter())
    names = [view.path.name for view in scene.views]
    listed = sorted(names)
    assert len(scene.pairs)
    assert all(
        listed.index(names[query]) == listed.index(names[reference]) + 1
        for reference, query in scene.pairs
    )
    np.savez(tmp_path / "0000.npz", image_paths=np.zeros(3))
    with pytest.raises(DataError, match=r"0000\.npz lacks 'overlap_matrix'"):
        read_megadepth(config.model_copy(update={"scene_info": tmp_path}), Counter())
    (tmp_path / "0000.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"cannot read .*0000\.npz.*savez"):
        read_megadepth(config.model_copy(update={"scene_info": tmp_path}), Counter())


def test_scenes_are_those_of_a_list(megadepth, tmp_path):
    (tmp_path / "train_scenes.txt").write_text("0000\n0007\n")
    config = MegaDepthConfig(path=megadepth, scene_list=tmp_path / "train_scenes.txt")
    with pytest.raises(DataError, match=r"lacks Undistorted_SfM/0007/images"):
        read_megadepth(config, Counter())
    with pytest.raises(DataError, match=r"scene_list .*none\.txt"):
        read_megadepth(config.model_copy(update={"scene_list": tmp_path / "none.txt"}), Counter())


def test_the_encoder_is_that_of_torchvision(imagenet, tmp_path):
    network = initial_network(ModelConfig(architecture="vgg16", imagenet_file=imagenet))
    assert isinstance(network, VggNet)
    state = torch.load(imagenet, weights_only=True)
    image = torch.rand(1, 3, 32, 32)
    x = image
    for layer in range(29):  # torchvision's own order: convolutions, ReLUs and poolings
        if f"features.{layer}.weight" in state:
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = nn.functional.relu(nn.functional.conv2d(x, weight, bias, padding=1))
        elif layer in (4, 9, 16, 23):
            x = nn.functional.max_pool2d(x, 2)
    for block in network.extractor.encoder:
        image = block(image)
    torch.testing.assert_close(image, x)
    with pytest.raises(WeightsError, match="not torchvision's checkpoint of vgg19"):
        initial_network(ModelConfig(architecture="vgg19", imagenet_file=imagenet))
    with pytest.raises(WeightsError, match=r"set model\.imagenet_file"):
        initial_network(ModelConfig(architecture="vgg19"))


def test_alignment_begins_on_the_way_to_the_truth(megadepth, imagenet):
    """At the reference with a share of 0, at the truth with 1, nearer than half way with 0.75."""
    drawn = drawn_from(on_megadepth(megadepth, imagenet).model_copy(update={"batch": 4}))
    generator = torch.Generator().manual_seed(0)

    def error_px(low: float, high: float) -> torch.Tensor:
        return mean_error_px(drawn.batch, poses_on_the_way(drawn.batch, (low, high), generator))

    assert error_px(1.0, 1.0).max() < 1e-2
    assert (error_px(0.75, 1.0) < 0.5 * error_px(0.0, 0.0)).all()
