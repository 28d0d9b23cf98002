"""PixLoc as published, on the generated street: poses, refinement of hloc's, and its files."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree
from typer.testing import CliRunner

from helpers import benchmark_trees as trees
from helpers.benchmark_trees import Street
from helpers.hloc_log import write_log
from helpers.scene import CAMERA
from pixloc_ros.alignment.problems import ViewSelector
from pixloc_ros.alignment.published import PublishedLocalizer
from pixloc_ros.cli.main import build
from pixloc_ros.common import image_files
from pixloc_ros.config import Config
from pixloc_ros.config.published import PublishedConfig, load_published
from pixloc_ros.errors import ConfigError, DataError, PixlocError
from pixloc_ros.evaluation.datasets import pose_lists
from pixloc_ros.evaluation.frames import read_frames
from pixloc_ros.evaluation.partial_run import partial_path
from pixloc_ros.evaluation.published import Refining, localize_files, read_image
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.files.hloc_logs import QueryLog, read_logs
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.reference_selection import (
    ReferenceModel,
    largest_covisible_group,
    logged_points,
    logged_references,
    mean_pose,
)
from pixloc_ros.priors.file_priors import map_from_world
from pixloc_ros.priors.logged_matches import read_logged_matches
from pixloc_ros.types import Frame

PROFILES = sorted((Path(__file__).parents[2] / "config" / "paper").glob("*.yaml"))
NEAR_M = 0.1


@pytest.fixture(scope="module")
def scenery(street: Path) -> Street:
    return Street(street, queries=2)


@pytest.fixture(scope="module")
def known(street: Path) -> ReferenceModel:
    return ReferenceModel.of(read_model(street / "data" / "mapping" / "colmap"))


def run(street: Path, scenery: Street, folder: Path, *more: object) -> dict[str, np.ndarray]:
    """Poses by query name that the command writes."""
    data = street / "data"
    camera = trees.words(
        "SIMPLE_PINHOLE", trees.WIDTH, trees.HEIGHT, scenery.focal, scenery.cx, scenery.cy
    )
    trees.write_lines(
        folder / "queries.txt", [f"{shot.path.name} {camera}" for shot in scenery.queries]
    )
    arguments = ["localize-published", "--colmap", data / "mapping" / "colmap"]
    arguments += ["--references", data / "mapping" / "images", "--images", data / "drive/images"]
    arguments += ["--queries", folder / "queries.txt", "--output", folder / "poses.txt", *more]
    result = CliRunner().invoke(build(), [str(word) for word in arguments])
    if result.exception is not None:
        raise result.exception
    return pose_lists.read_poses(folder / "poses.txt")


def errors_m(found: dict[str, np.ndarray], scenery: Street) -> list[float]:
    return [
        se3.distance_m(se3.inverse(found[shot.path.name]), se3.inverse(shot.T_cam_world))
        for shot in scenery.queries
    ]


@pytest.mark.slow
@pytest.mark.parametrize("average", [False, True])
def test_queries_are_localized_from_their_references(average, street, scenery, tmp_path):
    pairs, profile = tmp_path / "pairs.txt", tmp_path / "profile.yaml"
    trees.write_pairs(pairs, scenery, lambda s: s.path.name, lambda s: s.path.name)
    profile.write_text(
        f"{{max_side_px: 320, image_pyramid: [2, 1], iterations: 30, references: 3, border_px: 1, "
        f"average_observations: {str(average).lower()}, covisible_only: true}}"
    )
    found = run(street, scenery, tmp_path, "--pairs", pairs, "--config", profile)
    assert max(errors_m(found, scenery)) < NEAR_M


@pytest.mark.slow
def test_poses_of_hloc_are_refined_with_its_inliers(street, scenery, known, tmp_path):
    """And poses from a file instead of the log's, where they are given."""
    log, profile = tmp_path / "logs.pkl", tmp_path / "profile.yaml"
    write_log(log, scenery, known, off_m=0.15)
    profile.write_text(
        "{max_side_px: 320, image_pyramid: [1], levels: [1, 2], references: 3, border_px: 1, "
        "points: inliers, average_observations: true}"
    )
    found = run(street, scenery, tmp_path, "--inliers", log, "--config", profile)
    assert max(errors_m(found, scenery)) < 0.05
    lines = [
        trees.words(s.path.name, s.qvec, s.T_cam_world[:3, 3] + [0, 0, 0.1])
        for s in scenery.queries
    ]
    trees.write_lines(tmp_path / "priors.txt", lines)
    write_log(log, scenery, known, off_m=50.0)
    given = ("--inliers", log, "--config", profile, "--priors", tmp_path / "priors.txt")
    assert max(errors_m(run(street, scenery, tmp_path, *given), scenery)) < 0.05


def test_a_killed_run_keeps_its_poses_and_goes_on(known, tmp_path):
    """With too few inliers, each query keeps the pose of the log."""
    T = {f"{i}.png": se3.make(np.eye(3), [float(i), 0, 0]) for i in range(4)}
    cameras = dict.fromkeys(T, CAMERA)
    for name in T:
        image_files.write(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    logs = {name: QueryLog(T[name], (), (), (), ()) for name in T}
    read_reference = partial(read_image, tmp_path)
    localizer = Refining(PublishedLocalizer(PublishedConfig(), known, read_reference), logs)
    output, begun = tmp_path / "poses.txt", []

    def localize(after: int) -> None:
        def progress(names, *_: object):
            for count, name in enumerate(names):
                if count == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                begun.append(name)
                yield name

        localize_files(localizer, tmp_path, cameras, output, {}, progress)

    child = os.fork()
    if child == 0:
        try:
            localize(after=2)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert [frame.name for frame in read_frames(partial_path(output))] == ["0.png", "1.png"]
    assert not output.exists()
    localize(after=99)
    assert len(begun) == 2
    assert not partial_path(output).exists()
    found = pose_lists.read_poses(output)
    assert list(found) == list(T)
    np.testing.assert_allclose([*found.values()], [*T.values()], atol=1e-9)


@pytest.mark.slow
def test_the_inliers_of_hloc_are_aligned_on_a_map(street, scenery, known, tmp_path):
    """`pixloc localize --inliers`: from the log's poses, or given ones, with its points alone."""
    log, data = tmp_path / "logs.pkl", street / "data"
    write_log(log, scenery, known, off_m=0.2)
    camera = "SIMPLE_PINHOLE", trees.WIDTH, trees.HEIGHT, scenery.focal, scenery.cx, scenery.cy
    lines = [trees.words(shot.path.name, *camera) for shot in scenery.queries]
    trees.write_lines(tmp_path / "queries.txt", lines)
    arguments = ["localize", "--map", street / "map", "--images", data / "drive/images"]
    arguments += ["--queries", tmp_path / "queries.txt", "--output", tmp_path / "poses.txt"]
    arguments += ["--inliers", log, "--prior-sigma", "0.2,1.0", "--set", "threads=1"]
    refused = CliRunner().invoke(build(), [str(word) for word in arguments])
    assert isinstance(refused.exception, ConfigError)
    arguments += ["--colmap", data / "mapping/colmap"]
    result = CliRunner().invoke(build(), [str(word) for word in arguments])
    assert result.exception is None, result.output
    found = pose_lists.read_poses(tmp_path / "poses.txt")
    assert max(errors_m(found, scenery)) < 0.05
    write_log(log, scenery, known, off_m=50.0)  # useless poses, the same points
    given = {s.path.name: se3.make(np.eye(3), [0.2, 0, 0]) @ s.T_cam_world for s in scenery.queries}
    write_poses(tmp_path / "priors.txt", given)
    arguments += ["--priors", tmp_path / "priors.txt"]
    result = CliRunner().invoke(build(), [str(word) for word in arguments])
    assert result.exception is None, result.output
    assert max(errors_m(pose_lists.read_poses(tmp_path / "poses.txt"), scenery)) < 0.05


def test_only_the_points_of_a_log_are_aligned(street, scenery, known, tmp_path):
    """Its points have other numbers in the map; another model's are in no map."""
    log, map_ = tmp_path / "logs.pkl", Map.load(street / "map")
    write_log(log, scenery, known, off_m=0.2)
    names = [shot.path.name for shot in scenery.queries]
    prior = read_logged_matches(map_, log, known.model, names, (0.2, 1.0))
    frame = Frame(np.zeros((2, 2, 3), np.uint8), known.model.cameras[1], 0, np.eye(4), names[0])
    (proposed,) = prior.propose(frame)
    logged = read_logs(log)[names[0]]
    inliers = np.array(logged.points)[list(logged.inliers)]
    assert 0 < len(proposed.point_ids) <= len(inliers)
    rows = np.searchsorted(known.model.point_ids, inliers)
    expected = se3.transform(map_from_world(map_), known.model.points_world[rows])
    view = ViewSelector(map_, Config(map=str(street / "map"))).view(
        frame, proposed.T_map_base, proposed.point_ids
    )
    far_m, _ = KDTree(expected).query(view.points.numpy() + view.origin)
    assert len(view) and far_m.max() < 1e-3
    moved = replace(known.model, points_world=known.model.points_world + 5.0)
    with pytest.raises(DataError, match=r"logs\.pkl: the map has no point of the model"):
        read_logged_matches(map_, log, moved, names, (0.2, 1.0))


class Harmful:
    """A pickle of it writes a file when it is loaded with the common loader."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "run")


def test_a_log_that_would_run_code_runs_none(scenery, known, tmp_path):
    log, victim = tmp_path / "logs.pkl", tmp_path / "victim.txt"
    write_log(log, scenery, known, 0.1)
    content = pickle.loads(log.read_bytes())
    content["features"] = Harmful(victim)
    log.write_bytes(pickle.dumps(content))
    logs = read_logs(log)
    assert list(logs) == [shot.path.name for shot in scenery.queries]
    assert not victim.exists()
    log.write_bytes(b"no pickle")
    with pytest.raises(DataError, match=r"cannot read .*logs\.pkl.*log of hloc"):
        read_logs(log)


def test_references_and_points_of_a_log(known):
    names = [image.name for image in known.model.images[:3]]
    ids = tuple(known.images[name].image_id for name in names)
    points = known.model.point_ids[known.track_length >= 3][:4].tolist()
    observed = ((0,), (0, 1), (1, 2), (2,))
    log = QueryLog(None, ids, tuple(points), observed, (True, True, True, False))
    assert logged_references(known, log, 5, min_inliers=1) == names[:2]
    assert logged_references(known, log, 1, min_inliers=0) == names[:1]
    rows = np.searchsorted(known.model.point_ids, points)
    found = logged_points(known, log, names[:2], inliers_only=True, min_track_length=3)
    assert [list(found[name]) for name in names[:2]] == [list(rows[:2]), list(rows[1:3])]
    assert not len(logged_points(known, log, names[:1], True, 10_000)[names[0]])


def test_only_the_largest_group_that_shares_points_is_kept(known):
    """Images 17 m apart on a street share nothing."""
    names = [image.name for image in known.model.images]
    assert largest_covisible_group(known, [names[-1], names[0], names[1]]) == names[:2]


def test_the_mean_pose_follows_the_most_similar_reference(known):
    names = [image.name for image in known.model.images[:2]]
    T_0 = known.images[names[0]].T_cam_world
    assert se3.distance_m(mean_pose(known, names, np.array([1.0, 1e-3])), T_0) < 1e-6
    between = se3.inverse(mean_pose(known, names, np.ones(2)))[:3, 3]
    centres = [se3.inverse(known.images[name].T_cam_world)[:3, 3] for name in names]
    np.testing.assert_allclose(between, np.mean(centres, axis=0), atol=1e-9)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_papers_profiles_are_read(path):
    assert load_published(path, device="cpu").weights.endswith("checkpoint_best.tar")


def test_a_profile_with_an_unknown_name_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("num_dbs: 5")
    with pytest.raises(ConfigError, match=r"mine\.yaml: 'num_dbs'"):
        load_published(path)


def test_pairs_of_other_images_are_one_line(street, scenery, tmp_path):
    (tmp_path / "pairs.txt").write_text("a.jpg b.jpg\n")
    with pytest.raises(
        PixlocError, match=r"pairs.*: no query, as .*, has a reference in the model"
    ):
        run(street, scenery, tmp_path, "--pairs", tmp_path / "pairs.txt")
