"""Maps from images with known poses: triangulated with these, refused where they do not fit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from helpers.scene import CENTER, FOCAL, photograph, pose, write_scene
from pixloc_ros.cli.map import app
from pixloc_ros.common.progress import silent
from pixloc_ros.config import Config
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build import pose_check
from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag import adjustment
from pixloc_ros.maps.build.pose_check import Matches
from pixloc_ros.maps.build.sources import PosedImagesSource
from pixloc_ros.maps.build.triangulation import near_pairs, triangulate
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, PosePrior

NAMES = [f"{i}.png" for i in range(8)]
INTRINSICS = f"{FOCAL},{FOCAL},{CENTER[0]},{CENTER[1]}"


def read(images: Path, poses: Path, intrinsics: str = "") -> list[PosedImage]:
    source = PosedImagesSource(images=images, poses=poses, intrinsics=intrinsics)
    return source.read(BuildOptions(), BuildContext(images))[0]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    return folder


@pytest.fixture(scope="module")
def posed(scene) -> list[PosedImage]:
    return read(scene / "images", scene / "meta.json")


@pytest.fixture(scope="module")
def built(scene, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("maps") / "map"
    command = ["build", "--posed-images", scene / "meta.json", "--images", scene / "images"]
    result = CliRunner().invoke(
        app, [*map(str, command), "--output", str(output)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "px mean reprojection error" in result.output
    return output


@pytest.mark.slow
def test_map_has_the_given_poses_and_points_on_the_boards(built):
    map_ = Map.load(built)
    assert map_.keyframe_names == tuple(f"drive 1/{i:03d}.png" for i in range(8))
    np.testing.assert_allclose(map_.keyframe_T_map_cam, [pose(i) for i in range(8)], atol=1e-12)
    depths = map_.points_map()[:, 2]
    near = depths < 5
    assert near.sum() > 20 and (~near).sum() > 100
    assert np.median(np.abs(depths[near] - 3.5)) < 0.03
    assert np.median(np.abs(depths[~near] - 8.0)) < 0.1
    assert find_problems(built) == []


@pytest.mark.slow
def test_map_localizes(built):
    T_map_cam = pose(3.5)
    camera = Map.load(built).cameras[0]
    frame = Frame(photograph(T_map_cam), camera, 0, np.eye(4))
    T_prior = T_map_cam @ se3.make(np.eye(3), [0.1, 0.05, -0.1])
    prior = PosePrior(T_prior, np.diag([0.02] * 3 + [1e-4] * 3), "test", 0)
    estimate = Localizer(Config(), Map.load(built)).localize(frame, prior)
    assert estimate.ok and se3.distance_m(estimate.T_map_base, T_map_cam) < 0.03


@pytest.mark.slow
def test_coordinates_of_utm_size_are_kept(posed):
    utm = np.array([437_012.0, 5_412_345.0, 318.0])
    model, report = triangulate([moved(image, utm) for image in posed[:3]])
    near_model, _ = triangulate(posed[:3])
    np.testing.assert_allclose(
        se3.inverse(model.images[1].T_cam_world)[:3, 3], pose(1)[:3, 3] + utm, atol=1e-8
    )
    assert report.points == len(near_model.point_ids)
    distance_m, _ = cKDTree(near_model.points_world).query(model.points_world - utm)
    assert np.quantile(distance_m, 0.95) < 1e-6


def moved(image: PosedImage, by_m) -> PosedImage:
    return replace(image, T_map_cam=se3.make(np.eye(3), by_m) @ image.T_map_cam)


@pytest.mark.slow
@pytest.mark.parametrize("error_m", [[0.0, 0.5, 0.0], [0.2, 0.0, 0.0]])
def test_image_with_a_wrong_pose_is_named(posed, error_m):
    """Across the way the lines between images tell, along it what they triangulate."""
    wrong = [*posed]
    wrong[4] = moved(wrong[4], error_m)
    with pytest.raises(MapError, match=r"poses of 1 of 8 .* 'drive 1/004\.png'; correct"):
        triangulate(wrong)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda T: T @ se3.inverse(se3.base_from_optical()), "give those of the optical frame"),
        (lambda T: T @ np.diag([1.0, -1, -1, 1]), "OpenGL"),
        (se3.inverse, "they seem to be inverted"),
        (lambda T: T @ se3.base_from_optical(), "leave out the camera mount"),
    ],
)
def test_poses_of_another_convention_are_recognised(change, advice):
    poses = curve()
    pose_check.check(NAMES, poses, exact_matches(poses))
    with pytest.raises(MapError, match=advice) as caught:
        pose_check.check(NAMES, np.stack([change(T) for T in poses]), exact_matches(poses))
    assert "\n" not in str(caught.value)


def test_shuffled_poses_fit_no_convention():
    poses = curve()
    shuffled = poses[np.random.default_rng(3).permutation(len(poses))]
    with pytest.raises(MapError, match="are they in the order of the images"):
        pose_check.check(NAMES, shuffled, exact_matches(poses))


def curve() -> np.ndarray:
    """Poses (8, 4, 4) that move and turn in all dimensions."""
    turns = Rotation.from_rotvec(np.outer(np.arange(8), [0.03, 0.1, -0.02])).as_matrix()
    return np.stack([se3.make(R, [0.2 * i, 0.1 * i**1.5, 0.4 * i]) for i, R in enumerate(turns)])


def exact_matches(poses: np.ndarray) -> list[Matches]:
    """What 40 points before the cameras give."""
    points = np.random.default_rng(0).uniform([-2, -2, 6], [6, 3, 14], (60, 3))
    points_cam = [se3.transform(se3.inverse(T), points) for T in poses]
    rays = [p[:, :2] / p[:, 2:] for p in points_cam]
    return [Matches(i, j, rays[i], rays[j], FOCAL) for i, j in near_pairs(poses)]


def test_images_that_share_nothing_are_refused(posed, tmp_path):
    rng = np.random.default_rng(0)
    images = []
    for index, image in enumerate(posed[:3]):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (26, 40, 3), np.uint8), (320, 208)))
        images.append(replace(image, path=path))
    with pytest.raises(MapError, match="no two posed images share"):
        triangulate(images)


def test_one_image_or_one_place_is_refused(posed):
    with pytest.raises(MapError, match="at least two"):
        triangulate(posed[:1])
    with pytest.raises(MapError, match="all posed images are at one place"):
        triangulate([posed[0], replace(posed[1], T_map_cam=posed[0].T_map_cam)])
    with pytest.raises(MapError, match=r"000\.png' has two poses"):
        triangulate([posed[0], replace(posed[1], name=posed[0].name)])


def test_missing_pycolmap_names_the_remedy(posed, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MapError, match="pip install pycolmap"):
        triangulate(posed)


def test_neighbours_are_near_and_look_the_same_way():
    poses = np.stack([pose(i) for i in range(30)])
    poses[7, :3, :3] = np.diag([-1, 1, -1])  # looks back
    pairs = near_pairs(poses)
    assert all(j - i <= 9 for i, j in pairs)
    assert not any(7 in pair for pair in pairs)
    assert (0, 1) in pairs and (28, 29) in pairs


# --- poses from other files ----------------------------------------------------------------------


def write_tum(folder: Path, stamps: list[str]) -> Path:
    path = folder / "poses.txt"
    poses = [(*pose(i)[:3, 3], *se3.quat_xyzw(pose(i))) for i in range(len(stamps))]
    lines = [f"{s} {' '.join(map(str, numbers))}" for s, numbers in zip(stamps, poses, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def link_images(scene: Path, folder: Path, names: list[str]) -> Path:
    (folder / "images").mkdir()
    for source, name in zip(sorted((scene / "images").rglob("*.png")), names, strict=False):
        (folder / "images" / name).symlink_to(source)
    return folder / "images"


@pytest.mark.parametrize("nanoseconds", [True, False])
def test_tum_poses_belong_to_images_named_by_time(scene, tmp_path, nanoseconds):
    stamps = [f"1305031102.{i}00000000" for i in range(5)]
    names = [f"{s.replace('.', '') if nanoseconds else s[:-3]}.png" for s in stamps[:3]]
    images = link_images(scene, tmp_path, [*names, "1305039999.0.png"])
    posed = read(images, write_tum(tmp_path, stamps), INTRINSICS)
    assert [image.name for image in posed] == names
    np.testing.assert_allclose([image.T_map_cam for image in posed], [pose(i) for i in range(3)])


def test_tum_poses_of_a_vehicle_need_its_camera_mount(scene, tmp_path):
    stamps = ["1305031102.0", "1305031103.0"]
    images = link_images(scene, tmp_path, [f"{s}.png" for s in stamps])
    mount = se3.base_from_optical()
    poses = write_tum(tmp_path, stamps)
    source = PosedImagesSource(images=images, poses=poses, intrinsics=INTRINSICS)
    posed, options = source.read(BuildOptions(T_base_cam=mount), BuildContext(tmp_path))
    np.testing.assert_allclose(posed[1].T_map_cam, pose(1) @ mount)
    np.testing.assert_array_equal(options.T_base_cam, mount)


def test_poses_by_name_are_those_of_the_world_in_the_camera(scene, tmp_path):
    path = tmp_path / "poses.txt"
    write_poses(path, {"b.png": se3.inverse(pose(1)), "a.png": np.eye(4)})
    images = link_images(scene, tmp_path, ["a.png", "b.png"])
    posed = read(images, path, INTRINSICS)
    assert [image.name for image in posed] == ["b.png", "a.png"]
    np.testing.assert_allclose(posed[0].T_map_cam, pose(1), atol=1e-7)
    with pytest.raises(DataError, match="expected FX,FY,CX,CY"):
        read(images, path, "1,2,3")
    (images / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png, one of 2 with a pose, does not exist"):
        read(images, path, INTRINSICS)


def test_tum_poses_without_images_say_how_many(scene, tmp_path):
    images = link_images(scene, tmp_path, ["a.png"])
    with pytest.raises(DataError, match="1 images, 1 poses"):
        read(images, write_tum(tmp_path, ["5.0"]), INTRINSICS)


def test_command_line_wants_one_source(tmp_path):
    for arguments in ([], ["--colmap", "a", "--posed-images", "b"]):
        with pytest.raises(MapError, match="one of --bag, --colmap and --posed-images"):
            CliRunner().invoke(
                app,
                ["build", "--images", "i", "--output", str(tmp_path / "m"), *arguments],
                catch_exceptions=False,
            )


@pytest.fixture(scope="module")
def matched(posed, tmp_path_factory) -> ColmapRun:
    run = ColmapRun(tmp_path_factory.mktemp("run"), posed, silent)
    run.extract()
    run.match(near_pairs(np.stack([image.T_map_cam for image in posed])))
    return run


@pytest.mark.slow
def test_images_without_a_place_take_no_part_in_triangulation(posed, matched):
    T_map_cam = np.stack([image.T_map_cam for image in posed])
    placed = np.arange(len(posed)) != 3
    T_map_cam[3] = se3.make(np.eye(3), [0.0, 0.0, -1.0])  # means nothing
    model = matched.reconstruct(T_map_cam, placed)
    images = [model.image(i) for i in model.reg_image_ids()]
    assert sorted(matched.number(image.name) for image in images) == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.slow
def test_images_without_a_place_do_not_hold_the_orientation_of_the_others(posed, matched):
    T_start = np.stack([image.T_map_cam for image in posed])
    placed = np.arange(len(posed)) < 4
    model = matched.reconstruct(T_start, placed)
    R = Rotation.from_rotvec([0.0, 0.1, 0.0]).as_matrix()
    middle = T_start[placed, :3, 3].mean(0)
    turn = matched.pycolmap.Sim3d(1.0, matched.pycolmap.Rotation3d(R), middle - R @ middle)
    model.transform(turn)
    adjustment.turn_back(matched, model, T_start, sigma_m=0.1)
    np.testing.assert_allclose(matched.poses(model, T_start)[placed], T_start[placed], atol=1e-6)
