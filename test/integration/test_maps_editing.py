"""Maps cut, joined and drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.scene import BOARDS, CAMERA, pose, write_scene
from pixloc_ros.cli.map import app
from pixloc_ros.config import ViewConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import edit
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.datum import Datum, GridDatum
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge.merger import merge
from pixloc_ros.maps.view import select_view

pytestmark = pytest.mark.slow

VIEW = ViewConfig(keyframes=3, max_points=300)
OPTIONS = LidarOptions(voxel_m=0.1, cells_per_image=200)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder, 6)
    points = np.concatenate([board.points(0.1) for board in BOARDS])
    names = [f"drive 1/{i:03d}.png" for i in range(6)]
    images = [PosedImage(n, folder / "images" / n, CAMERA, pose(i)) for i, n in enumerate(names)]
    model, _ = model_from_cloud(points, images, OPTIONS)
    extractor = FeatureExtractor()

    def run(name: str, **options) -> Path:
        path = tmp_path_factory.mktemp("maps") / name
        build_from_model(model, folder / "images", path, extractor, BuildOptions(**options))
        return path

    return run


@pytest.fixture(scope="module")
def whole(build) -> Path:
    return build("whole")


def test_a_map_is_exported_for_others_and_built_again_from_that(whole, tmp_path):
    model, cloud = tmp_path / "model", tmp_path / "cloud.ply"
    command = ["export", str(whole), "--colmap", str(model), "--ply", str(cloud)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    map_, read = Map.load(whole), read_model(model)
    assert [image.name for image in read.images] == list(map_.keyframe_names)
    for image, T_map_cam in zip(read.images, map_.keyframe_T_map_cam, strict=True):
        np.testing.assert_allclose(se3.inverse(image.T_cam_world), T_map_cam, atol=1e-9)
    np.testing.assert_allclose(read.points_world, map_.points_map(), atol=1e-6)
    np.testing.assert_allclose(read_cloud(cloud), map_.points_map(), atol=1e-6)
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, MapError) and "exists" in str(again.exception)
    nothing = CliRunner().invoke(app, ["export", str(whole)])
    assert isinstance(nothing.exception, MapError) and "--colmap" in str(nothing.exception)


def assert_same_view(a: Map, b: Map, T_map_cam: np.ndarray) -> None:
    first, second = (select_view(m, T_map_cam, CAMERA, VIEW) for m in (a, b))
    assert first.keyframes == second.keyframes and len(first) > 50
    order_a, order_b = (np.lexsort(v.points.numpy().round(3).T) for v in (first, second))
    torch.testing.assert_close(first.points[order_a], second.points[order_b])
    for x, y in zip(first.features, second.features, strict=True):
        torch.testing.assert_close(x[order_a], y[order_b])


@pytest.mark.parametrize("storage", ["observations", "averaged"])
def test_part_serves_as_the_whole_did_there(build, tmp_path, storage):
    whole = Map.load(build("map", features=storage))
    part = edit.crop(whole, [-1, -1], [0.7, 1], tmp_path / "part", False)
    assert part.keyframe_names == whole.keyframe_names[:3]
    assert 0 < part.point_count <= whole.point_count
    assert find_problems(tmp_path / "part") == []
    assert_same_view(part, whole, pose(0.2))


def test_parts_joined_are_the_whole(whole, tmp_path):
    run = CliRunner()
    for name, corners in {"a": ["-9,-9", "0.7,9"], "b": ["0.7,-9", "9,9"]}.items():
        command = ["crop", str(whole), "--from", corners[0], "--to", corners[1]]
        done = run.invoke(app, [*command, "--output", str(tmp_path / name)], catch_exceptions=False)
        assert done.exit_code == 0
    joined = [str(tmp_path / name) for name in ("a", "b")]
    run.invoke(app, ["merge", *joined, "--output", str(tmp_path / "ab")], catch_exceptions=False)
    merged, original = Map.load(tmp_path / "ab"), Map.load(whole)
    assert find_problems(tmp_path / "ab") == []
    assert merged.keyframe_names == original.keyframe_names
    assert merged.metadata.observations == original.metadata.observations
    assert merged.metadata.cameras == original.metadata.cameras
    np.testing.assert_array_equal(merged.keyframe_T_map_cam, original.keyframe_T_map_cam)
    first = VIEW.model_copy(update={"keyframes": 1})
    for index in (0, 5):
        views = [select_view(m, pose(index), CAMERA, first) for m in (merged, original)]
        assert len(views[0]) == len(views[1])


def test_maps_are_placed_by_their_datums(build, tmp_path):
    datums = [
        Datum(latitude_deg=-16.8, longitude_deg=179.9999, altitude_m=40.0, yaw_deg=25.0),
        Datum(latitude_deg=-16.8004, longitude_deg=-179.9997, altitude_m=43.0, yaw_deg=-70.0),
    ]
    maps = [(f"m{i}", Map.load(build(f"m{i}", datum=d))) for i, d in enumerate(datums)]
    merged = merge(maps, tmp_path / "map", False).map
    assert merged.datum == datums[0]
    assert merged.keyframe_names[0] == "m0/drive 1/000.png"
    assert merged.keyframe_names[6] == "m1/drive 1/000.png"
    # The second map's zero is where its datum is in the first map.
    zero = datums[0].position_map(
        datums[1].latitude_deg, datums[1].longitude_deg, datums[1].altitude_m
    )
    assert 30 < np.linalg.norm(zero) < 80
    np.testing.assert_allclose(merged.keyframe_T_map_cam[6, :3, 3], zero, atol=1e-6)
    ahead = merged.keyframe_T_map_cam[11, :2, 3] - zero[:2]
    alone = maps[1][1].keyframe_T_map_cam[5, :2, 3]
    turned = np.arctan2(*ahead[::-1]) - np.arctan2(*alone[::-1])
    # Yaws count from east; meridians of the two datums converge by some 1e-4 degrees.
    assert np.rad2deg(turned) % 360 == pytest.approx(360 - 95, abs=0.01)
    T_cam_first = se3.inverse(merged.keyframe_T_map_cam[6])
    seen = se3.transform(T_cam_first, merged.points_map()[maps[0][1].point_count :])
    here = se3.transform(se3.inverse(pose(0)), maps[1][1].points_map())
    np.testing.assert_allclose(seen, here, atol=1e-4)


def test_maps_of_one_projected_frame_are_placed_by_their_zeros(build, tmp_path):
    pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    datums = [GridDatum.parse(f"EPSG:25832,{east},5400000,100") for east in (440000, 440040)]
    maps = [(f"g{i}", Map.load(build(f"g{i}", datum=d))) for i, d in enumerate(datums)]
    merged = merge(maps, tmp_path / "map", False).map
    apart = merged.keyframe_T_map_cam[6:, :3, 3] - merged.keyframe_T_map_cam[:6, :3, 3]
    np.testing.assert_allclose(apart, [[40.0, 0.0, 0.0]] * 6, atol=1e-9)
    elsewhere = Map.load(build("elsewhere", datum=GridDatum.parse("EPSG:25833")))
    with pytest.raises(MapError, match="by EPSG:25832, the other by EPSG:25833"):
        merge([maps[0], ("elsewhere", elsewhere)], tmp_path / "no", False)


def test_maps_that_cannot_be_joined_are_refused(build, whole, tmp_path):
    plain = ("plain", Map.load(whole))
    averaged = ("averaged", Map.load(build("averaged", features="averaged")))
    placed = ("placed", Map.load(build("placed", datum=Datum.parse("49,8,100,0"))))
    with pytest.raises(MapError, match="plain and averaged differ in storage"):
        merge([plain, averaged], tmp_path / "map", False)
    with pytest.raises(MapError, match="plain has no datum, the other has"):
        merge([plain, placed], tmp_path / "map", False)
    assert list(tmp_path.iterdir()) == []


def test_empty_part_says_where_the_map_is(whole, tmp_path):
    with pytest.raises(MapError, match=r"no keyframe from x,y 50\.0,.* are from 0\.0,0\.0 to 1\.5"):
        edit.crop(Map.load(whole), [50, 50], [60, 60], tmp_path / "map", False)
    command = ["crop", str(whole), "--from", "1", "--to", "2,3", "--output", str(tmp_path / "m")]
    with pytest.raises(ConfigError, match="--from 1: expected X,Y"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_plot_is_a_picture(whole, tmp_path):
    shown = CliRunner().invoke(app, ["info", str(whole), "--plot", str(tmp_path / "map.png")])
    assert shown.exit_code == 0
    picture = cv2.imread(str(tmp_path / "map.png"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 5
