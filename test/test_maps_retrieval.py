"""Frames found on a map with no prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scene import BOARDS, CAMERA, photograph, pose, write_scene

from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps import schema
from pixloc_ros.maps.builder import BuildOptions, build_map
from pixloc_ros.maps.lidar import LidarOptions, observe_cloud
from pixloc_ros.maps.posed import PosedImage
from pixloc_ros.maps.retrieval import RetrievalOptions, describe, most_alike, retrieve_priors
from pixloc_ros.maps.store import Map
from pixloc_ros.results import Frame

CLOSE = RetrievalOptions(candidates=4, priors=2, same_place_m=0.4, sigma_m=0.3, sigma_deg=3.0)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, extractor) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    names = [f"drive 1/{i:03d}.png" for i in range(8)]
    images = [PosedImage(n, folder / "images" / n, CAMERA, pose(i)) for i, n in enumerate(names)]
    points = np.concatenate([board.points(0.06) for board in BOARDS])
    model, _ = observe_cloud(points, images, LidarOptions(cells_per_image=300))
    build_map(model, folder / "images", folder / "map", extractor, BuildOptions())
    return folder / "map"


@pytest.fixture(scope="module")
def map_(folder) -> Map:
    return Map.load(folder)


def pyramid(extractor: FeatureExtractor, index: float, gain: float = 1.0) -> FeaturePyramid:
    return extractor.extract((photograph(pose(index)) * gain).astype(np.uint8))


def test_a_frame_looks_most_like_a_keyframe_beside_it(map_, extractor):
    for index, gain in ((0.2, 1.0), (3.2, 0.6), (6.8, 1.0)):
        descriptor = describe(pyramid(extractor, index, gain))
        assert np.linalg.norm(descriptor) == pytest.approx(1, abs=1e-5)
        keyframes, similarity = most_alike(map_, descriptor, 3)
        assert abs(keyframes[0] - index) < 1
        assert (abs(keyframes - index) < 3).all()
        assert (np.diff(similarity) <= 0).all() and similarity[0] > 0.9


def test_priors_are_distinct_places_for_the_vehicle(map_, extractor):
    T_base_cam = se3.make(se3.R_BASE_OPTICAL, [1.0, 0.0, 1.4])
    priors = retrieve_priors(map_, pyramid(extractor, 5.1), T_base_cam, 42, CLOSE)
    assert len(priors) == 2
    T_map_cam = [prior.T_map_base @ T_base_cam for prior in priors]
    assert se3.distance_m(T_map_cam[0], pose(5.1)) < 0.3
    assert se3.distance_m(*T_map_cam) > 0.3
    assert all(p.stamp_ns == 42 and p.source == "retrieval" for p in priors)
    sigmas = np.sqrt(np.diag(priors[0].covariance))
    np.testing.assert_allclose(sigmas, [0.3] * 3 + [np.deg2rad(3.0)] * 3)


def test_a_frame_with_no_prior_is_localized(map_, extractor):
    T_map_cam = pose(2.4)
    image = photograph(T_map_cam)
    prior = retrieve_priors(map_, extractor.extract(image), np.eye(4), 0, CLOSE)[0]
    estimate = Localizer(Config(), map_).localize(Frame(image, CAMERA, 0, np.eye(4)), prior)
    assert estimate.ok, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.03


def test_more_candidates_than_keyframes(map_, extractor):
    many = replace(CLOSE, candidates=100, priors=100, same_place_m=0.0)
    assert len(retrieve_priors(map_, pyramid(extractor, 1.0), np.eye(4), 0, many)) == 8


def test_map_of_an_older_release_opens_but_cannot_be_searched(folder, tmp_path, extractor):
    """Descriptors are optional: maps without them localize as before."""
    metadata, _ = schema.read(folder)
    old = tmp_path / "map"
    old.mkdir()
    for name in metadata.files:
        arrays = load_file(folder / name)
        arrays.pop("keyframe_descriptors", None)
        save_file(arrays, old / name)
    hashes = {name: schema.file_sha256(old / name) for name in metadata.files}
    schema.write(metadata.model_copy(update={"files": hashes}), old)
    opened = Map.load(old)
    assert opened.keyframe_descriptors is None
    with pytest.raises(MapError, match="no descriptors of keyframes; build it again"):
        retrieve_priors(opened, pyramid(extractor, 1.0), np.eye(4), 0)
