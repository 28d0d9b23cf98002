"""What the experiments with the features measure and draw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.scene import photograph, pose
from helpers.street import SMALL
from pixloc_ros.config import Config
from pixloc_ros.errors import DataError, WeightsError
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.features import weights
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.map import Map
from research import descent, marked_pairs, street_labels, variants
from research.commands import app
from research.descent import CHAIN, Descent, offsets
from research.street_confidence import confidence_by_class, labelled_views


@pytest.fixture(scope="module")
def seed() -> FeatureExtractor:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def ahead(street: Path) -> Descent:
    drive = street / "data" / "drive"
    posed = read_posed_images(drive / "meta.json", drive / "images")
    localizer = Localizer(Config(), Map.load(street / "map"))
    return Descent.of(localizer, *next(posed_frames(posed, [6])))


def write_pair(folder: Path, shift_px: int) -> Path:
    """Two views of the boards, the second moved by whole pixels, and the marks."""
    folder.mkdir(parents=True)
    image = photograph(pose(0))
    cv2.imwrite(str(folder / "01.png"), image)
    cv2.imwrite(str(folder / "02.png"), np.roll(image, shift_px, axis=1))
    x, y = np.meshgrid(np.arange(80, 230, 30), np.arange(60, 150, 30))
    marks = np.stack([x, y, x + shift_px, y], -1).reshape(-1, 4)
    np.savetxt(folder / "corrs.txt", marks)
    return folder


def test_marked_points_are_found_in_a_moved_image(tmp_path, seed):
    pair = marked_pairs.read_pair(write_pair(tmp_path / "pair", shift_px=32))
    search = marked_pairs.MatchScore(window_px=20, tolerance_px=4.0)
    found = marked_pairs.found(seed, pair, search)
    assert list(found) == ["stride 16", "stride 4", "stride 2", marked_pairs.JOINT]
    assert found[marked_pairs.JOINT].mean() > 0.9
    assert found["stride 2"].mean() > 0.9


def test_wrong_marks_are_found_as_often_as_by_chance(tmp_path, seed):
    folder = write_pair(tmp_path / "pair", shift_px=0)
    cv2.imwrite(str(folder / "02.png"), np.full((208, 320, 3), 128, np.uint8))
    found = marked_pairs.found(seed, marked_pairs.read_pair(folder), marked_pairs.MatchScore())
    assert found["stride 2"].mean() < 0.5
    assert marked_pairs.MatchScore(20, 8.0).chance == pytest.approx(np.pi * 64 / 41**2, abs=0.01)


def test_folders_that_are_no_pairs_say_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"expected PAIR/01\.jpg"):
        marked_pairs.read_pairs(tmp_path)
    folder = write_pair(tmp_path / "pair", 0)
    (folder / "02.png").unlink()
    with pytest.raises(DataError, match=r"no image 02"):
        marked_pairs.read_pair(folder)
    (folder / "corrs.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match="x1 y1 x2 y2"):
        marked_pairs.read_pair(folder)


@pytest.mark.slow
def test_labels_follow_the_geometry():
    image_rgb, label = next(labelled_views(1, SMALL))
    assert label.shape == image_rgb.shape[:2]
    shares = np.bincount(label.ravel(), minlength=len(street_labels.CLASSES)) / label.size
    assert (shares > 0.005).all()
    bottom, top = label[-8:], label[:8]
    assert np.isin(bottom, [street_labels.GROUND, street_labels.CARS]).all()
    assert not (top == street_labels.GROUND).any()


@pytest.mark.slow
def test_confidence_of_classes_adds_up_to_that_of_the_image(seed):
    *classes, whole = confidence_by_class(seed, 2, SMALL)
    assert sum(row.share for row in classes) == pytest.approx(1.0)
    for level in range(3):
        mean = sum(row.share * row.confidence[level] for row in classes)
        assert mean == pytest.approx(whole.confidence[level], abs=1e-4)


@pytest.mark.slow
def test_variants_lack_what_they_say(tmp_path, seed):
    image = photograph(pose(0))
    variants.write(variants.without_confidence("compact_seed"), tmp_path / "sure.safetensors")
    sure = FeatureExtractor(str(tmp_path / "sure.safetensors"))
    for level, original in zip(sure.extract(image).levels, seed.extract(image).levels, strict=True):
        assert level.rows[:, -1].min() > 0.999
        torch.testing.assert_close(level.rows[:, :-1], original.rows[:, :-1], atol=2e-2, rtol=0)
    variants.write(variants.with_fixed_damping("compact_seed"), tmp_path / "fixed.safetensors")
    damping = FeatureExtractor(str(tmp_path / "fixed.safetensors")).damping
    torch.testing.assert_close(
        damping, torch.full((3, 6), variants.FIXED_DAMPING), rtol=1e-4, atol=0
    )


def test_only_networks_with_known_heads_lose_their_confidence(tmp_path):
    variants.write(weights.build("vgg16"), tmp_path / "vgg16.safetensors")
    with pytest.raises(WeightsError, match="vgg16"):
        variants.without_confidence(str(tmp_path / "vgg16.safetensors"))


def test_random_weights_come_from_their_seed_and_are_not_flat():
    images = [photograph(pose(i)) for i in (0, 4)]
    first, again = (variants.random_network(images, seed=1).eval() for _ in range(2))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert all(maps.std() > 1e-2 for maps in first(image))


@pytest.mark.slow
def test_the_way_ends_at_the_truth_and_begins_where_it_was_put(ahead):
    starts = ahead.initial_poses(offsets("forward", [0.0, -1.0]) @ offsets("yaw", [0.0, 2.0]))
    errors = [ahead.error_px(pose) for pose in ahead.way(starts)]
    assert errors[0][0] < 1e-2 < 5 < errors[0][1]
    assert errors[-1].max() < 1.0
    assert errors[1][1] > errors[-1][1]


@pytest.mark.slow
def test_basin_is_full_at_the_truth_and_empty_far_away(ahead):
    shares = descent.basin([ahead], {"lateral": [0.0, 0.3, 12.0], "yaw": [0.0, 90.0]})
    assert list(shares["yaw"]) == ["stride 16", "stride 4", "stride 2", CHAIN]
    assert shares["lateral"][CHAIN].tolist() == [1.0, 1.0, 0.0]
    assert shares["yaw"][CHAIN].tolist() == [1.0, 0.0]


@pytest.mark.slow
def test_commands_write_pictures(street, tmp_path):
    drive = street / "data" / "drive"
    image = sorted((drive / "images").iterdir())[4]
    posed = ["--map", street / "map", "--images", drive / "images", "--meta", drive / "meta.json"]
    for name, arguments in {
        "degrade.jpg": ["degrade", image],
        "confidence.png": ["confidence", "--image", image],
        "travel.jpg": ["travel", *posed, "--frame", 5],
        "basin.png": ["basin", *posed, "--every", 9],
    }.items():
        command = [*map(str, arguments), "--output", str(tmp_path / name)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert cv2.imread(str(tmp_path / name)).std() > 10
