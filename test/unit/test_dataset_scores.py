"""Scores of benchmarks: published figures from the poses alone, and the conventions one by one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import pose_lists, scores
from pixloc_ros.evaluation.datasets.scores import INDOOR, OUTDOOR, Limit
from pixloc_ros.geometry import se3

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
# Median cm / deg and recall in percent below 5 cm 5 deg of hloc, per scene and ground truth, then
# the mean of the recalls below 5 cm 5 deg and below 2 cm 2 deg (counted by others).
PUBLISHED = {
    "dslam": (
        "2.4/0.77 1.8/0.75 0.9/0.59 2.6/0.77 4.4/1.15 4.0/1.38 5.1/1.46",
        "94.2 93.7 99.7 83.2 55.1 61.9 49.4",
        "76.7 36.3",
    ),
    "sfm": (
        "0.8/0.11 0.9/0.24 0.6/0.25 1.2/0.20 1.4/0.15 1.1/0.14 2.9/0.80",
        "100.0 99.4 100.0 100.0 100.0 98.6 72.0",
        "95.7 84.5",
    ),
}


def unpacked(archive: Path, folder: Path) -> Path:
    path = folder / archive.stem
    path.write_bytes(gzip.decompress(archive.read_bytes()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("truth", PUBLISHED)
def test_hloc_on_7scenes_scores_as_published_to_the_last_digit(truth, seven_scenes_poses, tmp_path):
    found = []
    for scene in SCENES:
        true, hloc = (
            unpacked(seven_scenes_poses / f"{truth}_{scene}_{kind}.txt.gz", tmp_path)
            for kind in ("truth", "hloc")
        )
        errors = scores.pose_errors(
            pose_lists.read_poses(hloc), pose_lists.read_poses(true, extra_columns=1)
        )
        found.append(scores.score(errors, INDOOR))
    medians, recalls, means = PUBLISHED[truth]
    assert " ".join(f"{100 * s.median_m:.1f}/{s.median_deg:.2f}" for s in found) == medians
    at_5, at_2 = ([100 * s.recall[limit] for s in found] for limit in (INDOOR[3], INDOOR[1]))
    assert " ".join(f"{share:.1f}" for share in at_5) == recalls
    assert f"{np.mean(at_5):.1f} {np.mean(at_2):.1f}" == means


def moved(T_cam_world: np.ndarray, distance_m: float, angle_deg: float) -> np.ndarray:
    """The camera with its centre moved and turned in place."""
    T_world_cam = se3.inverse(T_cam_world)
    turn = se3.make(Rotation.from_euler("y", angle_deg, degrees=True).as_matrix(), np.zeros(3))
    T_world_cam = T_world_cam @ turn
    T_world_cam[2, 3] += distance_m
    return se3.inverse(T_world_cam)


FAR_AWAY = se3.make(Rotation.from_rotvec([0.3, -1.2, 2.0]).as_matrix(), [400.0, -30.0, 7.0])


@given(st.floats(0.0, 20.0), st.floats(0.0, 170.0))
def test_errors_are_of_camera_centres_and_of_rotations(distance_m, angle_deg):
    errors = scores.pose_errors({"a": moved(FAR_AWAY, distance_m, angle_deg)}, {"a": FAR_AWAY})
    assert errors.distance_m == pytest.approx(distance_m, abs=1e-9)
    assert errors.angle_deg == pytest.approx(angle_deg, abs=1e-5)


def test_queries_without_a_pose_count_and_poses_without_a_query_do_not():
    true = dict.fromkeys("abc", FAR_AWAY)
    score = scores.score(scores.pose_errors({"b": FAR_AWAY, "z": np.eye(4)}, true), OUTDOOR)
    assert (score.queries, score.estimated) == (3, 1)
    assert score.recall[OUTDOOR[0]] == pytest.approx(1 / 3)
    assert (score.median_m, score.median_deg) == (np.inf, 180.0)


def test_half_of_an_even_number_missing_has_an_infinite_median():
    errors = scores.pose_errors({"a": FAR_AWAY}, {"a": FAR_AWAY, "b": FAR_AWAY})
    assert scores.score(errors, OUTDOOR).median_m == np.inf


def test_an_error_equal_to_the_limit_is_outside():
    errors = scores.PoseErrors(np.array([0.25, 0.2, 0.2]), np.array([1.0, 2.0, 1.0]))
    assert scores.recall(errors, Limit(0.25, 2.0)) == pytest.approx(1 / 3)


def test_conditions_are_pooled_over_queries():
    good = scores.PoseErrors(np.zeros(3), np.zeros(3))
    bad = scores.PoseErrors(np.full(1, 9.0), np.zeros(1))
    assert scores.recall(scores.pool([good, bad]), OUTDOOR[0]) == 0.75


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png 1 0 0 0 1 2", "2: expected `name qw qx qy qz x y z`"),
        ("a.png 1 0 0 zero 1 2 3", "2: expected `name qw"),
        ("a.png 5 0 0 0 1 2 3", "2: quaternion has norm 5"),
        ("a.png 1 0 0 0 1 2 3\na.png 1 0 0 0 1 2 3", "3: image a.png has a pose already"),
    ],
)
def test_a_wrong_line_of_poses_is_named(line, message, tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text(f"# poses\n{line}\n")
    with pytest.raises(DataError, match=r"poses\.txt:") as error:
        pose_lists.read_poses(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_camera_centres_and_translations_are_told_apart(tmp_path):
    path = tmp_path / "poses.txt"
    qvec, centre = se3.qvec_wxyz(FAR_AWAY), se3.inverse(FAR_AWAY)[:3, 3]
    path.write_text(" ".join(map(str, ["a.png", *qvec, *centre])))
    np.testing.assert_allclose(pose_lists.read_poses_of_centres(path)["a.png"], FAR_AWAY, atol=1e-9)
