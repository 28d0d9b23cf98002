"""The public benchmarks, each from a small tree in its official layout to table or submission."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from helpers import benchmark_trees as trees
from helpers.benchmark_trees import Street
from pixloc_ros.cli.main import build
from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import RetrievalConfig
from pixloc_ros.config.published import PublishedConfig
from pixloc_ros.errors import ConfigError, DataError, MapError, PixlocError
from pixloc_ros.evaluation.camera_poses import accepted_poses, answered_poses
from pixloc_ros.evaluation.datasets import catalogue, pose_lists
from pixloc_ros.evaluation.datasets.localization import (
    localize_scene,
)
from pixloc_ros.evaluation.datasets.protocol import DatasetFiles, Retrieval
from pixloc_ros.evaluation.datasets.published_method import rank_references
from pixloc_ros.evaluation.datasets.robotcar import image_name
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel, read_model
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.reference_selection import ReferenceModel
from pixloc_ros.priors import file_priors
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

pytestmark = pytest.mark.slow

NEAR_M = 0.1


@pytest.fixture(scope="module")
def scenery(street: Path) -> Street:
    return Street(street)


def run(
    name: str, root: Path, output: Path, *more: object, settings: tuple[str, ...] = ("threads=1",)
) -> str:
    arguments = ["evaluate-dataset", name, "--root", root, "--output", output, *more]
    arguments += [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(build(), [str(word) for word in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def summary(output: Path, row: str = "pixloc_ros, accepted only") -> dict:
    return json.loads((output / "summary.json").read_text())[row]


def files(root: Path, **more: object) -> DatasetFiles:
    return DatasetFiles(root, **more)  # type: ignore[arg-type]


# --- Cambridge Landmarks --------------------------------------------------------------------------


def test_cambridge_with_reduced_models_and_cameras_of_their_own(scenery, tmp_path):
    root = trees.cambridge(tmp_path / "cambridge", scenery)
    output = tmp_path / "out"
    printed = run("cambridge", root, output, "--hloc", tmp_path / "hloc")
    found = summary(output)["ShopFacade"]
    assert found["queries"] == found["estimated"] == 3
    assert found["median_m"] < NEAR_M
    assert "5/.23" in printed and "PixLoc" in printed  # the paper's figure beside ours
    # Started again, it localizes nothing and says the same.
    frames = output / "scenes" / "ShopFacade" / "frames.jsonl"
    lines = frames.read_text()
    assert run("cambridge", root, output, "--hloc", tmp_path / "hloc") == printed
    assert frames.read_text() == lines
    # After a kill in the middle of a line, the rest is done again.
    frames.write_text(lines[: len(lines) // 2])
    assert run("cambridge", root, output, "--hloc", tmp_path / "hloc") == printed
    with pytest.raises(DataError, match="results of another config"):
        run("cambridge", root, output, "--hloc", tmp_path / "hloc", "--set", "view.keyframes=2")


def test_cambridge_scales_cameras_and_keypoints_to_the_files(scenery, tmp_path):
    root = trees.cambridge(tmp_path / "cambridge", scenery)
    scene = catalogue.open_dataset("cambridge", files(root)).load("ShopFacade")
    model = scene.references()
    assert len(model.images) == len(scenery.references)
    for camera in (scene.queries[0].camera, next(iter(model.cameras.values()))):
        assert (camera.width, camera.height) == (trees.WIDTH, trees.HEIGHT)
        assert float(camera.focal[0]) == pytest.approx(scenery.focal)
        assert camera.center.tolist() == pytest.approx([scenery.cx - 0.5, scenery.cy - 0.5])
    np.testing.assert_allclose(
        model.images[0].pixels + 0.5, scenery.references[0].pixels, atol=1e-9
    )


def test_cambridge_without_a_part_names_it_and_where_it_lives(scenery, tmp_path):
    root = trees.cambridge(tmp_path / "cambridge", scenery)
    models = root / "CambridgeLandmarks_Colmap_Retriangulated_1024px" / "ShopFacade"
    dataset = catalogue.open_dataset("cambridge", files(root))
    (root / "ShopFacade" / "seq3").rename(root / "ShopFacade" / "seq4")
    with pytest.raises(DataError, match=r"seq3/.* is missing, .* 2 other images.*repository\.cam"):
        dataset.load("ShopFacade")
    shutil.rmtree(models / "empty_all")
    with pytest.raises(DataError, match=r"empty_all is missing: poses of all images; .*Google"):
        dataset.load("ShopFacade")
    with pytest.raises(DataError, match="KingsCollege is missing: the folder of the images"):
        dataset.load("KingsCollege")
    with pytest.raises(DataError, match="no such folder; scenes: repository"):
        catalogue.open_dataset("cambridge", files(tmp_path / "nothing"))


# --- 7Scenes --------------------------------------------------------------------------------------


def test_7scenes_without_the_test_images_and_what_only_they_see(scenery, tmp_path):
    root = trees.seven_scenes(tmp_path / "7scenes", scenery)
    scene = catalogue.open_dataset("7scenes", files(root)).load("heads")
    model = scene.references()
    assert len(model.images) == len(scenery.references)
    assert len(model.point_ids) == len(scenery.model.point_ids)
    assert scene.retrieval.pairs is not None
    # The street is no room: its own distances.
    outdoors = ["--set", "view.max_distance_m=30", "--set", "retrieval.same_place_m=15"]
    outdoors += ["--set", "retrieval.sigma_m=1.5"]
    printed = run("7scenes", root, tmp_path / "out", *outdoors)
    assert summary(tmp_path / "out")["heads"]["median_m"] < NEAR_M
    assert "D-SLAM" in printed and "1/.82" in printed
    known = json.loads((tmp_path / "out" / "scenes" / "heads" / "run.json").read_text())
    assert known["config"]["hypotheses"]["same_pose_m"] < 0.1  # of rooms where nothing is said
    assert known["config"]["view"]["max_distance_m"] == 30


def test_points_of_7scenes_are_moved_to_rendered_depth(scenery, tmp_path):
    """Along their rays; the left half of the images has no depth: there observations are lost."""
    root = trees.seven_scenes(tmp_path / "7scenes", scenery)
    plain = catalogue.open_dataset("7scenes", files(root)).load("heads").references()
    dataset = catalogue.open_dataset("7scenes", files(root, depth=root / "depth"))
    with pytest.raises(DataError, match=r"seq02_frame-\d+\.pose\.depth\.tiff is missing"):
        dataset.load("heads").references()
    for image in plain.images:
        name = image.name.replace("seq-02/", "seq02_").replace("color.png", "pose.depth.tiff")
        path = root / "depth" / "7scenes_heads" / "train" / "depth" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        depth_mm = np.full((trees.HEIGHT, trees.WIDTH), 4000, np.uint16)
        depth_mm[:, : trees.WIDTH // 2] = 0
        cv2.imwrite(str(path), depth_mm)
    scene = dataset.load("heads")
    moved = scene.references()
    assert scene.map_name == "heads_depth"
    assert 0 < len(moved.point_ids) < len(plain.point_ids)
    last = moved.images[-1]
    ids = last.point_ids[last.point_ids >= 0]
    points = moved.points_world[np.searchsorted(moved.point_ids, ids)]
    before = plain.points_world[np.searchsorted(plain.point_ids, ids)]
    points_cam, before_cam = (se3.transform(last.T_cam_world, p) for p in (points, before))
    np.testing.assert_allclose(points_cam[:, 2], 4.0)
    np.testing.assert_allclose(points_cam / points_cam[:, 2:], before_cam / before_cam[:, 2:])


def test_7scenes_reads_either_pseudo_ground_truth(scenery, tmp_path):
    root = trees.seven_scenes(tmp_path / "7scenes", scenery)
    truth = tmp_path / "pgt" / "sfm" / "7scenes"
    dataset = catalogue.open_dataset("7scenes", files(root, ground_truth=truth))
    assert "SfM" in dataset.title
    scene = dataset.load("heads")
    assert float(scene.queries[0].camera.focal[0]) == pytest.approx(scenery.focal)
    references = scene.references()
    assert [r.name for r in references] == [
        f"seq-02/frame-{s.path.stem}.color.png" for s in scenery.references
    ]
    np.testing.assert_allclose(
        references[0].T_cam_world, scenery.references[0].T_cam_world, atol=1e-9
    )
    with pytest.raises(DataError, match="give pgt/sfm/7scenes or pgt/dslam/7scenes"):
        catalogue.open_dataset("7scenes", files(root, ground_truth=tmp_path))


def test_poses_of_another_system_are_scored_without_a_map(scenery, tmp_path):
    """In the format of a submission: names without leading folders, one query missing."""
    root = trees.cambridge(tmp_path / "cambridge", scenery)
    lines = [
        trees.words(f"seq3/{s.path.stem}.png", s.qvec, s.T_cam_world[:3, 3])
        for s in scenery.queries[:2]
    ]
    trees.write_lines(tmp_path / "hloc_ShopFacade.txt", lines)
    template = tmp_path / "hloc_{scene}.txt"
    run("cambridge", root, tmp_path / "out", "--estimates", template)
    found = summary(tmp_path / "out", "hloc_{scene}")["ShopFacade"]
    assert (found["queries"], found["estimated"]) == (3, 2)
    assert found["recall"]["5 cm 5 deg"] == pytest.approx(2 / 3)
    assert found["median_m"] < 1e-6


# --- Aachen Day-Night -----------------------------------------------------------------------------


def submitted(path: Path) -> dict[str, np.ndarray]:
    return pose_lists.read_poses(path)


def distance_m(T_0: np.ndarray, T_1: np.ndarray) -> float:
    return se3.distance_m(se3.inverse(T_0), se3.inverse(T_1))


def test_aachen_writes_day_and_night_of_the_lists_into_one_file(scenery, tmp_path):
    root = trees.aachen(tmp_path / "aachen", scenery)
    printed = run("aachen", root, tmp_path / "out")
    poses = submitted(tmp_path / "out" / "Aachen_eval_pixloc_ros.txt")
    assert list(poses) == [f"IMG_{s.path.name}" for s in scenery.queries]
    for T, shot in zip(poses.values(), scenery.queries, strict=True):
        assert distance_m(T, shot.T_cam_world) < NEAR_M
    assert "server" in printed and "hloc" in printed


def test_aachen_has_the_same_references_and_queries_in_both_versions(scenery, tmp_path):
    scenes = [
        catalogue.open_dataset(name, files(trees.aachen(tmp_path / name, scenery, version)))
        for name, version in (("aachen", "1.0"), ("aachen-v1.1", "1.1"))
    ]
    old, new = (dataset.load("night") for dataset in scenes)
    assert [query.name for query in old.queries] == [query.name for query in new.queries]
    assert_same_references(old.references(), new.references())


def assert_same_references(model: ColmapModel, other: ColmapModel) -> None:
    """The same images with the same cameras and poses, which see the same points."""
    for one, two in zip(*map(references_by_name, (model, other)), strict=True):
        assert one.name == two.name
        np.testing.assert_allclose(one.T_cam_world, two.T_cam_world, atol=1e-9)
        cameras = model.cameras[one.camera_id], other.cameras[two.camera_id]
        focals, centers = ([getattr(c, n).tolist() for c in cameras] for n in ("focal", "center"))
        assert focals[0] == pytest.approx(focals[1]) and centers[0] == pytest.approx(centers[1])
        observations = seen(model, one)
        assert len(observations) > 20
        np.testing.assert_allclose(observations, seen(other, two), atol=1e-6)


def references_by_name(model: ColmapModel) -> list[ColmapImage]:
    return sorted(model.images, key=lambda image: image.name)


def seen(model: ColmapModel, image: ColmapImage) -> np.ndarray:
    """Pixel (2) and point (3) of each observation, in the order of the pixels."""
    has = image.point_ids >= 0
    points = model.points_world[np.searchsorted(model.point_ids, image.point_ids[has])]
    observations = np.hstack([image.pixels[has], points])
    return observations[np.lexsort(image.pixels[has].round(3).T)]


def test_aachen_without_intrinsics_of_an_image(scenery, tmp_path):
    root = trees.aachen(tmp_path / "aachen", scenery)
    path = root / "3D-models" / "database_intrinsics.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    scene = catalogue.open_dataset("aachen", files(root)).load("day")
    with pytest.raises(MapError, match="1 images without intrinsics, the first is 'db/"):
        scene.references()
    nvm = root / "3D-models" / "aachen_cvpr2018_db.nvm"
    nvm.write_text("\n".join(nvm.read_text().splitlines()[:-5]))
    with pytest.raises(MapError, match=r"Download it again|without intrinsics"):
        scene.references()


# --- RobotCar Seasons -----------------------------------------------------------------------------


def test_robotcar_scores_public_queries_and_submits_the_others(scenery, tmp_path):
    root = trees.robotcar(tmp_path / "robotcar", scenery)
    run("robotcar", root, tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["day"]["queries"] == found["night"]["queries"] == 1
    assert found["day"]["median_m"] < NEAR_M and found["night"]["median_m"] < NEAR_M
    poses = submitted(tmp_path / "out" / "RobotCar_eval_pixloc_ros.txt")
    assert list(poses) == ["rear/1417178853389471.jpg"]
    assert distance_m(next(iter(poses.values())), scenery.queries[2].T_cam_world) < NEAR_M


def test_robotcar_models_are_joined_and_named_like_the_files(scenery, tmp_path):
    root = trees.robotcar(tmp_path / "robotcar", scenery)
    model = catalogue.open_dataset("robotcar", files(root)).load("sun").references()
    assert len(model.images) == len(scenery.references)  # one is in both places
    assert model.images[0].name.startswith("overcast-reference/rear/")
    assert all(image.name.endswith(".jpg") for image in model.images)
    for image in model.images:
        assert np.isin(image.point_ids[image.point_ids >= 0], model.point_ids).all()
    assert image_name("./night/rear/1.png") == image_name("night/rear/1.jpg")
    root = trees.robotcar(tmp_path / "nvm", scenery, places=False)
    of_nvm = catalogue.open_dataset("robotcar", files(root)).load("sun").references()
    assert_same_references(model, of_nvm)


def test_robotcar_as_a_rig_takes_the_images_of_the_same_time(scenery, tmp_path):
    root = trees.robotcar(tmp_path / "robotcar", scenery)
    with pytest.raises(DataError, match=r"rear_extrinsics\.txt is missing: pose of the camera"):
        catalogue.open_dataset("robotcar", files(root, rig=True)).load("sun")
    turn = Rotation.from_euler("xyz", [1.0, 7.0, 2.0], degrees=True).as_matrix()
    T_rear_left = se3.make(turn, np.zeros(3))
    trees.robotcar_rig(root, scenery, T_rear_left)
    (query,) = catalogue.open_dataset("robotcar", files(root, rig=True)).load("sun").queries
    assert [other.name for other in query.others] == ["sun/left/1417178853389469.jpg"]
    np.testing.assert_allclose(query.others[0].T_query_cam, T_rear_left, atol=1e-12)
    run("robotcar", root, tmp_path / "out", "--scene", "sun", "--rig")
    frames = (tmp_path / "out" / "scenes" / "sun" / "frames.jsonl").read_text()
    assert json.loads(frames)["cameras"] == ["rear", "left"]
    assert summary(tmp_path / "out")["day"]["median_m"] < NEAR_M


def test_robotcar_compares_descriptors_of_one_place_and_camera(scenery, tmp_path):
    """As published runs do; a query that no list of places has is compared with all."""
    root = trees.robotcar(tmp_path / "robotcar", scenery)
    lists = root / "3D-models" / "individual" / "queries_per_location"
    trees.write_lines(lists / "queries_location_001.txt", ["sun/rear/1417178853389469.png"])
    trees.write_lines(lists / "queries_location_002.txt", ["night/rear/1417178853389470.png"])
    places = root / "3D-models" / "individual" / "colmap_reconstructions"
    expected = {image_name(i.name) for i in read_model(places / "002_aligned").images}
    (tmp_path / "netvlad.h5").touch()
    given = files(root, descriptors=(str(tmp_path / "netvlad.h5"),))
    scene = catalogue.open_dataset("robotcar", given).load("night")
    assert scene.retrieval.among == {"night/rear/1417178853389470.jpg": frozenset(expected)}
    assert len(scene.queries) == 2 and len(expected) < len(scenery.references)
    lists.joinpath("queries_location_002.txt").rename(lists / "queries_location_003.txt")
    with pytest.raises(DataError, match=r"003_aligned is missing: references of queries_location"):
        catalogue.open_dataset("robotcar", given).load("night")


def test_descriptors_of_other_places_propose_nothing(street, tmp_path):
    h5py = pytest.importorskip("h5py")
    map_ = Map.load(street / "map")
    with h5py.File(tmp_path / "netvlad.h5", "w") as file:
        for name in ("a", "b", *map_.keyframe_names):  # the queries look like the first keyframe
            alike = name in ("a", "b", map_.keyframe_names[0])
            file[f"{name}/global_descriptor"] = [1.0, 0.0] if alike else [0.8, 0.6]
    among = {"a": frozenset([map_.keyframe_names[-1]]), "b": frozenset(["elsewhere"])}
    config = RetrievalConfig(candidates=1)
    prior = file_priors.read_descriptors(map_, [tmp_path / "netvlad.h5"], ["a", "b"], config, among)
    camera = Camera.create("PINHOLE", [2, 2], [1, 1], [0.5, 0.5])
    a, b = (Frame(np.zeros((2, 2, 3), np.uint8), camera, 0, np.eye(4), name) for name in "ab")
    (proposed,) = prior.propose(a)
    np.testing.assert_allclose(proposed.T_map_base[:3, 3], map_.keyframe_T_map_cam[-1, :3, 3])
    assert prior.propose(b) == []


# --- Extended CMU Seasons -------------------------------------------------------------------------


def test_cmu_reads_centres_and_submits_translations(scenery, tmp_path):
    """And two processes find the same poses as one."""
    root = trees.cmu(tmp_path / "cmu", scenery)
    run("cmu", root, tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["urban"]["queries"] == 3 and found["urban"]["median_m"] < NEAR_M
    poses = submitted(tmp_path / "out" / "CMU_eval_pixloc_ros.txt")
    for T, shot in zip(poses.values(), scenery.queries, strict=True):
        assert distance_m(T, shot.T_cam_world) < NEAR_M
    shutil.copytree(tmp_path / "out" / "maps", tmp_path / "together" / "maps")
    run("cmu", root, tmp_path / "together", "--scene", "slice7", "--workers", 2)
    alone, together = (
        (tmp_path / folder / "scenes" / "slice7" / "poses.txt").read_text()
        for folder in ("out", "together")
    )
    assert alone == together


def test_cmu_takes_the_camera_from_the_name(scenery, tmp_path):
    root = trees.cmu(tmp_path / "cmu", scenery)
    names = root / "slice2" / "test-images-slice2.txt"
    first = names.read_text().splitlines()[0]
    (root / "slice2" / "query" / first).rename(root / "slice2" / "query" / "img_0_c7_1us.jpg")
    names.write_text("img_0_c7_1us.jpg\n")
    with pytest.raises(DataError, match="its third word is none of c0, c1"):
        catalogue.open_dataset("cmu", files(root)).load("slice2")


# --- 4Seasons -------------------------------------------------------------------------------------


def test_four_seasons_begins_at_the_given_frames_and_writes_relative_poses(scenery, tmp_path):
    root = trees.four_seasons(tmp_path / "4seasons", scenery)
    model = trees.four_seasons_model(tmp_path / "model", scenery)
    run("4seasons", root, tmp_path / "out", "--model", model)
    found = summary(tmp_path / "out")["validation"]
    assert found["queries"] == 3
    assert found["recall"]["0.1 m"] == 1.0
    easy = tmp_path / "out" / "relocalizationFile_recording_2020-03-24_17-45-31_easy.txt"
    truth = root / "reference" / "RelocalizationFilesVal"
    expected = next(truth.iterdir()).read_text().splitlines()[1:3]
    for line, known in zip(easy.read_text().splitlines(), expected, strict=True):
        assert line.split()[:2] == known.split()[:2]
        difference = np.array(line.split()[2:], float) - np.array(known.split()[2:], float)
        assert np.abs(difference[:3]).max() < NEAR_M and np.abs(difference[3:]).max() < 0.01


def test_four_seasons_lists_both_cameras_of_the_reference(scenery, tmp_path):
    root = trees.four_seasons(tmp_path / "4seasons", scenery)
    shot = scenery.references[0]
    trees.copy_image(shot, root / "reference/undistorted_images/cam1" / f"{trees.stamp(shot)}.png")
    references = catalogue.open_dataset("4seasons", files(root)).load("test0").references()
    assert len(references) == len(scenery.references) + 1
    left, right = references[:2]
    assert distance_m(left.T_cam_world, right.T_cam_world) == pytest.approx(0.3)


# --- the published method, and its pyramid --------------------------------------------------------

PUBLISHED = ["weights: compact_seed", "max_side_px: 320", "border_px: 1", "iterations: 20"]


def as_published(folder: Path, *more: str) -> Path:
    path = folder / "published.yaml"
    path.write_text("\n".join([*PUBLISHED, *more]) + "\n")
    return path


def test_the_published_method_localizes_by_listed_references(scenery, tmp_path):
    """Without a map; with both rows, and none of ours. Other settings need another output."""
    root, output = trees.cambridge(tmp_path / "cambridge", scenery), tmp_path / "out"
    config = as_published(tmp_path, "image_pyramid: [2, 1]", "references: 2")
    given = ["cambridge", root, output, "--hloc", tmp_path / "hloc", "--published", config]
    printed = run(*given, settings=())
    found = summary(output, "published method, aligned only")["ShopFacade"]
    assert found["queries"] == found["estimated"] == 3
    assert found["median_m"] < NEAR_M
    assert not (output / "maps").exists() and "5/.23" in printed
    as_published(tmp_path, "image_pyramid: [1]")
    with pytest.raises(DataError, match="results of another config"):
        run(*given, settings=())
    with pytest.raises(ConfigError, match="--published has all settings in its file"):
        run(*given)


def test_references_are_ranked_by_descriptors_or_as_listed(scenery, tmp_path):
    """Of a list its order counts, and descriptors weight; without one they rank."""
    h5py = pytest.importorskip("h5py")
    root = trees.cambridge(tmp_path / "cambridge", scenery)
    scene = catalogue.open_dataset("cambridge", files(root)).load("ShopFacade")
    known = ReferenceModel.of(scene.references())
    references, (query, *_) = list(known.images), [q.name for q in scene.queries]
    with h5py.File(tmp_path / "netvlad.h5", "w") as file:
        for i, name in enumerate(references):  # less and less like the query
            file[f"{name}/global_descriptor"] = [np.cos(0.1 * i), np.sin(0.1 * i)]
        file[f"{query}/global_descriptor"] = [1.0, 0.0]
    descriptors = (tmp_path / "netvlad.h5",)
    config = PublishedConfig(references=2, mean_initial_pose=True)
    ranked = rank_references(Retrieval(None, descriptors), known, [query], config)[query]
    assert ranked.names == tuple(references[:2])
    assert ranked.similarity == pytest.approx((1.0, np.cos(0.1)))
    masked = Retrieval(None, descriptors, among={query: frozenset(references[4:6])})
    assert rank_references(masked, known, [query], config)[query].names == tuple(references[4:6])
    pairs = tmp_path / "pairs.txt"
    trees.write_lines(pairs, [f"{query} {reference}" for reference in references[3:1:-1]])
    ranked = rank_references(Retrieval(pairs, descriptors), known, [query], config)[query]
    assert ranked.names == (references[3], references[2])
    assert ranked.similarity == pytest.approx((np.cos(0.3), np.cos(0.2)))
    with pytest.raises(ConfigError, match="weights references by --descriptors"):
        rank_references(Retrieval(pairs), known, [query], config)
    with pytest.raises(ConfigError, match="give --pairs or --descriptors"):
        rank_references(Retrieval(), known, [query], PublishedConfig())


def test_an_image_pyramid_has_a_map_for_each_size(scenery, tmp_path):
    root, output = trees.cambridge(tmp_path / "cambridge", scenery), tmp_path / "out"
    given = ["cambridge", root, output, "--hloc", tmp_path / "hloc"]
    run(*given, "--image-pyramid", "4,1", "--limit", "1", settings=("features.max_side_px=320",))
    assert summary(output)["ShopFacade"]["median_m"] < NEAR_M
    sizes = [
        Map.load(output / "maps" / n).metadata.max_side_px for n in ("ShopFacade_4", "ShopFacade")
    ]
    assert sizes == [80, 320]
    with pytest.raises(DataError, match="results of another smaller_maps"):
        run(*given, "--limit", "1", settings=("features.max_side_px=320",))
    with pytest.raises(ConfigError, match="--image-pyramid 1,4: give parts that fall to 1"):
        run(*given, "--image-pyramid", "1,4")


# --- all of them ----------------------------------------------------------------------------------


class Refusing:
    """Stands for a localizer that has no answer, as with several proposals out of view."""

    def open(self) -> Refusing:
        return self

    def localize(self, frame, priors, other_cameras) -> Estimate:
        return Estimate(Status.FAILED, Reason.TOO_FEW_POINTS, "none", 0, frame.name)


def test_a_refused_query_counts_as_failed_and_is_submitted_where_it_began(scenery, tmp_path):
    """Also one whose file is no image; the place is that of the first reference in its list."""
    root = trees.aachen(tmp_path / "aachen", scenery)
    dataset = catalogue.open_dataset("aachen", files(root))
    scene = dataset.load("night")
    broken, *_ = [query.name for query in scene.queries]
    (root / "images_upright" / broken).write_bytes(b"no image")
    places = [scenery.references[2], scenery.references[0]]
    priors = [PosePrior(se3.inverse(s.T_cam_world), np.eye(6), "list", 0) for s in places]
    fixed = SimpleNamespace(propose=lambda frame: priors)
    (tmp_path / "out").mkdir()
    found = localize_scene(scene, Refusing(), fixed, tmp_path / "out", {}, Workers())
    assert [result.reason for result in found] == ["bad_image", "too_few_points"]
    assert accepted_poses(found, np.eye(4)) == {}
    answered = answered_poses(found, np.eye(4))
    (path,) = dataset.write_submission(tmp_path, {"night": answered})
    for T_cam_world in submitted(path).values():
        np.testing.assert_allclose(T_cam_world, places[0].T_cam_world, atol=1e-6)
    assert len(answered) == len(scene.queries) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("kitti", "."), "dataset 'kitti' is none of cambridge, 7scenes"),
        (("aachen", ".", "--scene", "dusk"), "--scene dusk: Aachen .* has day, night"),
        (("cmu", "."), "slice2 is missing: the folder of the slice; data.ciirc"),
        (("cambridge", ".", "--scene", "ShopFacade"), "ShopFacade is missing"),
        (("7scenes", "."), "chess is missing: the folder of the images of chess; scenes: micro"),
        (("robotcar", "."), "images is missing: the folder of all conditions; "),
        (
            ("4seasons", "."),
            r"reference/poses\.txt is missing: poses of the reference frames; 4sea",
        ),
    ],
)
def test_what_is_asked_for_in_vain_is_one_line(arguments, complaint, tmp_path):
    name, _, *more = arguments
    with pytest.raises(PixlocError, match=complaint) as error:
        run(name, tmp_path, tmp_path / "out", *more)
    assert "\n" not in str(error.value)
