"""Frames found on a map with no prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.scene import BOARDS, CAMERA, FAR, NEAR, photograph, pose, write_scene
from pixloc_ros.config import Config, RetrievalConfig, from_flat
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps import schema
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.retrieval import describe, most_alike, places
from pixloc_ros.types import Frame, PosePrior, Reason, Status

pytestmark = pytest.mark.slow

CLOSE = RetrievalConfig(candidates=4, places=2, same_place_m=0.4, sigma_m=0.3, sigma_deg=3.0)


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
    model, _ = model_from_cloud(points, images, LidarOptions(cells_per_image=300))
    build_from_model(model, folder / "images", folder / "map", extractor, BuildOptions())
    return folder / "map"


@pytest.fixture(scope="module")
def map_(folder) -> Map:
    return Map.load(folder)


def pyramid(extractor: FeatureExtractor, index: float, gain: float = 1.0) -> FeaturePyramid:
    return extractor.extract((photograph(pose(index)) * gain).astype(np.uint8))


def found(
    map_: Map,
    pyramid: FeaturePyramid,
    config: RetrievalConfig = CLOSE,
    T_base_cam: np.ndarray | None = None,
) -> list[PosePrior]:
    ranking = most_alike(map_.keyframe_descriptors, describe(pyramid), config.candidates)
    return places(map_, ranking, np.eye(4) if T_base_cam is None else T_base_cam, 42, config)


def test_a_frame_looks_most_like_a_keyframe_beside_it(map_, extractor):
    for index, gain in ((0.2, 1.0), (3.2, 0.6), (6.8, 1.0)):
        descriptor = describe(pyramid(extractor, index, gain))
        assert np.linalg.norm(descriptor) == pytest.approx(1, abs=1e-5)
        keyframes, similarity = most_alike(map_.keyframe_descriptors, descriptor, 3)
        assert abs(keyframes[0] - index) < 1
        assert (abs(keyframes - index) < 3).all()
        assert (np.diff(similarity) <= 0).all() and similarity[0] > 0.9


def test_priors_are_distinct_places_for_the_vehicle(map_, extractor):
    T_base_cam = se3.make(se3.R_BASE_OPTICAL, [1.0, 0.0, 1.4])
    priors = found(map_, pyramid(extractor, 5.1), T_base_cam=T_base_cam)
    assert len(priors) == 2
    T_map_cam = [prior.T_map_base @ T_base_cam for prior in priors]
    assert se3.distance_m(T_map_cam[0], pose(5.1)) < 0.3
    assert se3.distance_m(*T_map_cam) > 0.3
    assert all(p.stamp_ns == 42 and p.source == "retrieval" for p in priors)


def test_a_prior_is_as_vague_as_the_keyframes_are_apart(map_, extractor):
    """Along the slide they are 0.3 m apart and turned by 1.2 degrees, together."""
    covariance = found(map_, pyramid(extractor, 4.1))[0].covariance
    sigma_m = np.sqrt(np.diag(covariance)[:3])
    least = np.array([CLOSE.sigma_m, CLOSE.sigma_m, CLOSE.sigma_m])
    assert (sigma_m >= least).all()
    assert 0.15**2 < covariance[0, 0] - CLOSE.sigma_m**2 < 0.4**2, "half a spacing, and the mean"
    np.testing.assert_allclose(sigma_m[1:], least[1:], atol=0.02)
    turn = covariance[0, 4] / np.sqrt(covariance[0, 0] * covariance[4, 4])
    assert turn < -0.1, "farther to the right is turned farther to the left"


def test_a_frame_with_no_prior_is_localized(map_):
    T_map_cam = pose(2.4)
    localizer = Localizer(Config(retrieval=CLOSE), map_)
    estimate = localizer.localize(Frame(photograph(T_map_cam), CAMERA, 7, np.eye(4)))
    assert estimate.ok, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.03
    assert (estimate.prior.source, estimate.prior.stamp_ns) == ("retrieval", 7)
    assert {"features", "retrieval", "alignment"} <= estimate.timing_ms.keys()


def test_of_several_priors_the_best_wins_and_is_compared_with_the_others(map_):
    T_map_cam = pose(2.4)
    frame = Frame(photograph(T_map_cam), CAMERA, 0, np.eye(4))
    localizer = Localizer(Config(), map_)
    near, far = (PosePrior(pose(i), np.eye(6) * 1e-3, "test", 0) for i in (2.2, 7.0))
    estimate = localizer.localize(frame, [far, near])
    assert estimate.ok, estimate.message
    assert estimate.prior is near
    assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.03
    assert np.isfinite(estimate.alignment.runner_up_cost), "of the far one"
    np.testing.assert_allclose(estimate.alignment.T_map_cam_prior, near.T_map_base, atol=1e-9)


def test_a_picture_of_another_place_is_found_nowhere(map_):
    rng = np.random.default_rng(3)
    elsewhere = replace(FAR, seed=77), replace(NEAR, seed=78)
    image = photograph(pose(3.0), elsewhere)
    for picture in (image, np.zeros_like(image), rng.integers(0, 255, image.shape, np.uint8)):
        frame = Frame(picture, CAMERA, 0, np.eye(4))
        estimate = Localizer(Config(retrieval=CLOSE), map_).localize(frame)
        assert not estimate.ok
        assert estimate.T_map_base is None


def test_an_image_of_another_size_is_not_searched_for(map_):
    frame = Frame(photograph(pose(2.0))[:-8], CAMERA, 0, np.eye(4))
    assert Localizer(Config(), map_).localize(frame).reason is Reason.BAD_IMAGE


def test_more_candidates_than_keyframes(map_, extractor):
    many = CLOSE.model_copy(update={"candidates": 100, "places": 100, "same_place_m": 0.0})
    assert len(found(map_, pyramid(extractor, 1.0), many)) == 8


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
        found(opened, pyramid(extractor, 1.0))
    frame = Frame(photograph(pose(2.4)), CAMERA, 0, np.eye(4))
    estimate = Localizer(Config(), opened).localize(frame)
    assert (estimate.status, estimate.reason) == (Status.FAILED, Reason.NO_PRIOR)
    assert "no descriptors to search by: build it again" in estimate.message


def test_searching_can_be_switched_off(map_):
    localizer = Localizer(from_flat({"retrieval.enabled": False}), map_)
    estimate = localizer.localize(Frame(photograph(pose(2.4)), CAMERA, 0, np.eye(4)))
    assert estimate.reason is Reason.NO_PRIOR
    assert "retrieval.enabled" in estimate.message
