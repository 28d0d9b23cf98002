"""One map after the other: images of half the size first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import benchmark_trees as trees
from helpers.benchmark_trees import Street
from pixloc_ros.cli.main import build
from pixloc_ros.common import image_files
from pixloc_ros.config import Config
from pixloc_ros.errors import ConfigError
from pixloc_ros.evaluation.datasets import pose_lists
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.image_pyramid import PyramidLocalizer
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.priors.file_priors import map_from_world
from pixloc_ros.types import Frame, PosePrior

pytestmark = pytest.mark.slow

OFF = se3.make(np.eye(3), [1.0, 0.0, -0.5])


@pytest.fixture(scope="module")
def scenery(street: Path) -> Street:
    return Street(street, queries=1)


@pytest.fixture(scope="module")
def half_size(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of the street of images of half the size."""
    mapping, folder = street / "data" / "mapping", tmp_path_factory.mktemp("half") / "map"
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    extractor = FeatureExtractor("compact_seed", "cpu", trees.WIDTH // 2)
    build_map(source, folder, extractor=extractor)
    return folder


def localizer_of(folder: Path) -> Localizer:
    return Localizer(Config(map=str(folder), threads=1))


def test_each_map_begins_where_the_one_before_ended(street, scenery, half_size):
    (shot,) = scenery.queries
    small, large = localizer_of(half_size), localizer_of(street / "map")
    camera = scenery.model.cameras[1]
    frame = Frame(image_files.read(shot.path), camera, 0, np.eye(4), shot.path.name)
    T_map_cam = map_from_world(large.map) @ se3.inverse(shot.T_cam_world)
    prior = PosePrior(T_map_cam @ OFF, diagonal(1.0, 2.0), "file", 0)
    first = small.localize(frame, prior)
    estimate = PyramidLocalizer((small, large)).localize(frame, prior)
    assert estimate.ok
    assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.05
    np.testing.assert_array_equal(estimate.prior.T_map_base, first.candidate_T_map_base)
    far = replace(prior, T_map_base=se3.make(np.eye(3), [1e4, 0, 0]) @ prior.T_map_base)
    lost = PyramidLocalizer((small, large)).localize(frame, far)
    np.testing.assert_array_equal(lost.prior.T_map_base, far.T_map_base)


def test_localize_takes_maps_of_smaller_images(street, scenery, half_size, tmp_path):
    (shot,), data = scenery.queries, street / "data"
    camera = "SIMPLE_PINHOLE", trees.WIDTH, trees.HEIGHT, scenery.focal, scenery.cx, scenery.cy
    trees.write_lines(tmp_path / "queries.txt", [trees.words(shot.path.name, *camera)])
    write_poses(tmp_path / "priors.txt", {shot.path.name: se3.inverse(OFF) @ shot.T_cam_world})
    arguments = ["localize", "--map", street / "map", "--smaller-map", half_size]
    arguments += ["--images", data / "drive/images", "--queries", tmp_path / "queries.txt"]
    arguments += ["--output", tmp_path / "poses.txt", "--set", "threads=1"]
    refused = CliRunner().invoke(build(), [str(word) for word in arguments])
    assert isinstance(refused.exception, ConfigError)
    arguments += ["--priors", tmp_path / "priors.txt"]
    result = CliRunner().invoke(build(), [str(word) for word in arguments])
    assert result.exception is None, result.output
    found = pose_lists.read_poses(tmp_path / "poses.txt")[shot.path.name]
    assert se3.distance_m(se3.inverse(found), se3.inverse(shot.T_cam_world)) < 0.05
