"""Maps that overlap become one: points that are one are joined, maps that disagree are aligned."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.scene import BOARDS, CAMERA, FAR, NEAR, pose, write_scene
from pixloc_ros.cli.map import app
from pixloc_ros.config import ViewConfig
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import edit
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.held_queries import (
    FILE_NAME,
    HeldComparison,
    HeldQuery,
    HeldScore,
    arrays_of,
    queries_of,
    read_session_arrays,
)
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge.joined_points import most_different
from pixloc_ros.maps.merge.merger import Merged, MergeOptions, merge
from pixloc_ros.maps.schema import SessionEntry
from pixloc_ros.maps.update.point_history import PointHistory
from pixloc_ros.maps.view import select_view

COUNT = 6
NOISE = 0.0025  # of the distances of each map's points, as triangulation errs
METRES_PER_DEGREE = 111_300.0  # of latitude
HERE = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=0.0)
THERE = HERE.model_copy(update={"latitude_deg": 49.0 + 0.4 / METRES_PER_DEGREE, "yaw_deg": 0.5})


@pytest.fixture(scope="module")
def drives(tmp_path_factory) -> list[Path]:
    """Maps of two drives through one scene, each with images and errors of its own; the datum of
    the second one is 0.4 m and half a degree off."""
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder, COUNT)
    extractor, maps = FeatureExtractor(), []
    for first, datum in enumerate((HERE, THERE)):
        points = np.concatenate([board.points(0.1) for board in BOARDS])
        amid = pose(COUNT / 2 - 1 + first)[:3, 3]
        scale = np.random.default_rng(first).normal(1, NOISE, (len(points), 1))
        points = amid + scale * (points - amid)
        images = [
            PosedImage(name, folder / "images" / name, CAMERA, pose(i))
            for i, name in enumerate(f"drive 1/{i:03d}.png" for i in range(COUNT))
            if i % 2 == first
        ]
        model, _ = model_from_cloud(points, images, LidarOptions(voxel_m=0.1, cells_per_image=200))
        maps.append(folder / f"map_{first}")
        options = BuildOptions(datum=datum, min_track_length=2)
        build_from_model(model, folder / "images", maps[-1], extractor, options)
    return maps


def loaded(folders: list[Path]) -> list[tuple[str, Map]]:
    return [(folder.name, Map.load(folder)) for folder in folders]


def saved_again(name: str, map_: Map, folder: Path, fields: dict, **extra) -> tuple[str, Map]:
    """A map with other metadata."""
    part = edit.MapPart(
        map_, np.arange(COUNT // 2), map_.keyframe_names, map_.keyframe_camera, np.eye(4)
    )
    metadata = {**dict(map_.metadata), **fields}
    return name, edit.save([part], metadata, folder / name, False, **extra)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("merged") / "map"


@pytest.fixture(scope="module")
def merged(drives, output) -> Merged:
    return merge(loaded(drives), output, options=MergeOptions(align=True))


def test_maps_that_differ_are_refused_and_stay_as_they_are(drives, tmp_path):
    before = [Map.load(folder).sha256 for folder in drives]
    command = ["merge", *map(str, drives), "--output", str(tmp_path / "map")]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, MapError)
    assert "map_0 and map_1 differ by 0." in str(refused.exception)
    assert "--align" in str(refused.exception) and list(tmp_path.iterdir()) == []
    beside = CliRunner().invoke(app, [*command, "--no-join"], catch_exceptions=False)
    assert beside.exit_code == 0
    counts = [Map.load(folder).point_count for folder in drives]
    assert Map.load(tmp_path / "map").point_count == sum(counts)
    assert [Map.load(folder).sha256 for folder in drives] == before


def test_maps_in_folders_of_the_same_name_are_merged(drives, tmp_path):
    folders = [tmp_path / place / "map" for place in ("north", "south")]
    for folder in folders:
        shutil.copytree(drives[0], folder)
    command = ["merge", *map(str, folders), "--no-join", "--output", str(tmp_path / "town")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    names = Map.load(tmp_path / "town").keyframe_names
    assert {name.partition("/map/")[0] for name in names} == {"north", "south"}


def test_a_map_given_twice_is_refused(drives, tmp_path):
    command = ["merge", str(drives[0]), str(drives[0]), "--output", str(tmp_path / "town")]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, MapError)
    assert "given twice" in str(refused.exception)
    with pytest.raises(MapError, match="different names"):
        merge(loaded([drives[0], drives[0]]), tmp_path / "town")


def test_a_map_is_brought_onto_the_other(merged, output):
    (overlap,) = merged.overlaps
    assert 0.3 < overlap.offsets.median_m < 0.6 and np.median(overlap.offsets.angle_deg) > 0.4
    truth = np.array([pose(i) for i in (0, 2, 4, 1, 3, 5)])
    found = merged.map.keyframe_T_map_cam
    assert np.linalg.norm(found[:, :3, 3] - truth[:, :3, 3], axis=-1).max() < 0.03
    assert max(se3.angle_deg(a, b) for a, b in zip(found, truth, strict=True)) < 0.2
    assert find_problems(output) == []


def test_joined_points_are_nearer_to_the_truth_and_seen_by_both(drives, tmp_path):
    first, (name, map_) = loaded(drives)
    second = saved_again(name, map_, tmp_path, {"datum": HERE})
    done = merge([first, second], tmp_path / "map")
    before = [map_.points_map() for map_ in (first[1], second[1])]
    grids = [{(*p.round(1)[:2], p[2] > 5) for p in points} for points in before]
    common = len(grids[0] & grids[1])
    assert 0.9 * common < done.joined < 1.05 * common
    assert done.map.point_count == sum(map(len, before)) - done.joined
    assert done.overlaps[0].offsets.median_m < 0.05

    tile = done.map.whole()
    seen_by: list[set[int]] = [set(), set()]
    for keyframe in range(COUNT):
        ids = tile.point_id[tile.observation_point[tile.observations(keyframe)]]
        seen_by[keyframe >= COUNT // 2] |= set(ids.tolist())
    shared = np.isin(tile.point_id, sorted(seen_by[0] & seen_by[1]))
    assert shared.sum() == done.joined
    assert depth_error_m(tile.points_map()[shared]) < 0.85 * depth_error_m(np.concatenate(before))
    neighbours = done.map.covisible_keyframe[: done.map.covisible_offsets[1]]
    assert (neighbours >= COUNT // 2).any()


def depth_error_m(points: np.ndarray) -> float:
    planes = np.array([FAR.z_m, NEAR.z_m])
    return float(np.median(np.abs(points[:, 2:] - planes).min(-1)))


def test_a_view_has_each_point_once(merged):
    view = select_view(merged.map, pose(2.5), CAMERA, ViewConfig(keyframes=6, max_points=10_000))
    assert len(set(view.keyframes)) == 6
    points = view.points.double().numpy()
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
    assert (distances.min(1) < 0.03).mean() < 0.1  # of pairs that were not joined


def test_histories_and_held_queries_are_kept(drives, tmp_path):
    entries = [
        SessionEntry(
            name=name, date=date, frames=9, keyframes=0, observations=0, points_added=0,
            points_retired=retired,
        )
        for name, date, retired in (("b", "2026-02-01", 3), ("a", "2026-01-01", 4))
    ]  # fmt: skip
    maps = []
    for index, ((name, map_), entry) in enumerate(zip(loaded(drives), entries, strict=True)):
        query = HeldQuery.of(np.zeros((8, 8, 3), np.uint8), CAMERA, pose(2 * index), np.eye(4))
        known = np.array([0, 1], np.int32)
        file = {**PointHistory(known, known + 1, known + 2).arrays(), **arrays_of([query])}
        condition = {"keyframe_condition": np.array([0, 0, 1], np.int32)}
        fields, files = {"history": (entry,)}, {FILE_NAME: file}
        maps.append(
            saved_again(name, map_, tmp_path, fields, keyframe_arrays=condition, other_files=files)
        )
    before, after = HeldScore(1.0, 0.01), HeldScore(0.5, 0.01)
    judged: list[tuple[Map, list[HeldQuery]]] = []

    def judge(map_: Map, queries: Sequence[HeldQuery]) -> HeldScore:
        judged.append((map_, list(queries)))
        return before if any(map_ is old for _, old in maps) else after

    with pytest.raises(
        MapError, match=r"map_0 would be worse in the new map: of 1 held queries 0\.5"
    ):
        merge(maps, tmp_path / "map", options=MergeOptions(align=True), judge=judge)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map_0", "map_1"]
    forced = MergeOptions(align=True, force=True)
    done = merge(maps, tmp_path / "map", options=forced, judge=judge)
    compared = HeldComparison(1, before, after)
    assert done.held == (("map_0", compared), ("map_1", compared))
    (_, (of_second,)) = judged[-1]  # which is brought onto the first
    held = queries_of(read_session_arrays(done.map))
    assert (of_second.T_map_base == held[1].T_map_base).all()
    assert [entry.name for entry in done.map.metadata.history] == ["a", "b"]
    assert sum(entry.points_retired for entry in done.map.metadata.history) == 7
    assert done.map.keyframe_condition.tolist() == [0, 0, 1, 0, 0, 2]
    arrays = read_session_arrays(done.map)
    held = queries_of(arrays)
    errors_m = [se3.distance_m(q.T_map_base, pose(i)) for q, i in zip(held, (0, 2), strict=True)]
    assert max(errors_m) < 0.03
    ids = set(done.map.whole().point_id.tolist())
    assert set(PointHistory.of(arrays).point_id.tolist()) <= ids
    assert find_problems(tmp_path / "map") == []


def test_observations_that_are_kept_are_the_most_different():
    angles = np.deg2rad([0, 1, 2, 30, 31, 60])
    rays = np.stack([np.sin(angles), np.zeros(6), np.cos(angles)], -1) * 5
    assert sorted(np.round(most_different(rays, 3)).tolist()) == [0, 3, 5]
    assert len(most_different(rays, 9)) == 6
