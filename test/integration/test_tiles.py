"""Tiles: cut, opened where they are needed, within a budget, refused one by one."""

from __future__ import annotations

import gc
import pickle
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pixloc_ros.cli.map import app
from pixloc_ros.config import Config, TilesConfig, ViewConfig
from pixloc_ros.doctor import examine
from pixloc_ros.errors import MapError
from pixloc_ros.maps import schema
from pixloc_ros.maps.build import edit
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.merge.merger import merge
from pixloc_ros.maps.tiles import as_int8, unit_rows
from pixloc_ros.maps.view import MapView, select_view
from research.invented_map import (
    CAMERA,
    InventedMap,
    camera_poses,
    write_invented_map,
)
from research.map_benchmark import measure

pytestmark = pytest.mark.slow

VIEW = ViewConfig(keyframes=3, max_points=150)
SMALL = InventedMap(6000, points_per_m=10, dims=(8, 6, 4), descriptor=16, tile_m=50.0)
NOTHING_AHEAD = TilesConfig(prefetch_m=0.0)
# Metres along the road: amid tile 2_0, on its border, and inside by a keyframe or two.
HERE, BORDER, INSIDE = 100.0, 73.5, 78.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "tiled"
    write_invented_map(SMALL, folder)
    return folder


@pytest.fixture
def copy(tmp_path) -> Path:
    write_invented_map(SMALL, tmp_path / "map")
    return tmp_path / "map"


@pytest.fixture(scope="module")
def in_one(folder, tmp_path_factory) -> Map:
    output = tmp_path_factory.mktemp("maps") / "one"
    stored = edit.StoredMap(tile_m=0)
    return edit.crop(Map.load(folder), [-1e4, -1e4], [1e4, 1e4], output, False, stored)


def pose(along_m: float) -> np.ndarray:
    return camera_poses(np.array([along_m / 3.0]))[0]


def view(map_: Map, along_m: float, device: str = "cpu") -> MapView:
    return select_view(map_, pose(along_m), CAMERA, VIEW, device)


def tiles_of(map_: Map, seen: MapView) -> set[str]:
    index = [map_.keyframe_tile[map_.keyframe_names.index(name)] for name in seen.keyframes]
    return {map_.metadata.tiles[i].id for i in index}


def assert_same(a: MapView, b: MapView) -> None:
    assert a.keyframes == b.keyframes and a.nearest_m == b.nearest_m
    torch.testing.assert_close(a.points, b.points, atol=1e-4, rtol=0)
    for x, y in zip(a.features + a.confidences, b.features + b.confidences, strict=True):
        assert torch.equal(x, y)


# --- what a view shows does not depend on the tiles -----------------------------------------------


def test_views_of_tiles_are_those_of_the_map_in_one_piece(folder, in_one):
    tiled = Map.load(folder)
    assert len(tiled.tiles) > 10 and len(in_one.tiles) == 1
    assert tiled.point_count == in_one.point_count
    for along_m in np.arange(0.0, 550.0, 11.0):
        a, b = view(tiled, along_m), view(in_one, along_m)
        assert len(a) > 100
        assert_same(a, b)
    np.testing.assert_allclose(tiled.points_map(), in_one.points_map(), atol=1e-4)


def test_views_do_not_depend_on_what_was_opened_before(folder):
    configs = (TilesConfig(), NOTHING_AHEAD, TilesConfig(budget_mb=0))
    maps = [Map.load(folder, tiles=config) for config in configs]
    for along_m in (70.0, 74.0, 400.0, 71.0):
        views = [view(map_, along_m) for map_ in maps]
        for other in views[1:]:
            assert_same(views[0], other)


def test_a_view_across_a_border_takes_rows_from_both_sides(folder):
    map_ = Map.load(folder, tiles=NOTHING_AHEAD)
    seen = view(map_, BORDER)
    assert tiles_of(map_, seen) == {"1_0", "2_0"} == set(map_.tiles.opened)


def test_rows_on_another_device(folder):
    map_ = Map.load(folder, device="meta", tiles=NOTHING_AHEAD)
    seen = view(map_, HERE, "meta")
    assert seen.features[0].device.type == seen.points.device.type == "meta"
    assert seen.features[0].shape == (len(seen), 8)
    assert view(Map.load(folder), HERE, "meta").features[2].device.type == "meta"


# --- opened when they are needed ------------------------------------------------------------------


def test_first_view_opens_no_more_than_it_needs(folder):
    map_ = Map.load(folder, tiles=NOTHING_AHEAD)
    assert map_.tiles.opened == ()
    view(map_, HERE)
    assert map_.tiles.opened == ("2_0",)


def test_tiles_around_are_opened_in_the_background(folder):
    map_ = Map.load(folder, tiles=TilesConfig(prefetch_m=60.0))
    view(map_, HERE)
    map_.tiles.settle()
    assert set(map_.tiles.opened) == {"1_0", "2_0", "3_0"}


def test_budget_holds_along_the_drive(folder):
    budget_mb = 3.5 * max(tile.bytes for tile in schema.read(folder)[0].tiles) / 1e6
    map_ = Map.load(folder, tiles=TilesConfig(budget_mb=budget_mb))
    most = 0
    for along_m in np.arange(0.0, 550.0, 7.0):
        view(map_, along_m)
        map_.tiles.settle()
        most = max(most, map_.tiles.bytes)
    assert 0.7 * budget_mb < most / 1e6 <= budget_mb


def test_nothing_is_opened_again_to_and_fro_at_a_border(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "map")
    budget_mb = 3.5 * max(tile.bytes for tile in schema.read(folder)[0].tiles) / 1e6
    map_ = Map.load(tmp_path / "map", tiles=TilesConfig(budget_mb=budget_mb, prefetch_m=70.0))
    view(map_, BORDER)
    map_.tiles.settle()
    opened = set(map_.tiles.opened)
    for path in (tmp_path / "map").glob("tile_*"):
        path.unlink()
    for along_m in (BORDER - 8.0, BORDER + 8.0) * 3:
        assert len(view(map_, along_m)) > 100
        map_.tiles.settle()
    assert set(map_.tiles.opened) == opened and not map_.tiles.refused


def test_the_background_ends_with_the_map(folder):
    before = set(threading.enumerate())
    first, second = (Map.load(folder) for _ in range(2))
    for map_ in (first, second):
        view(map_, HERE)
    started = [t for t in threading.enumerate() if t not in before and "tiles" in t.name]
    assert len(started) == 2
    first.close()
    assert first.tiles.opened == () and first.tiles.bytes == 0
    del second, map_
    gc.collect()
    for thread in started:
        thread.join(timeout=60.0)
        assert not thread.is_alive()


def test_a_map_travels_to_another_process(folder):
    map_ = Map.load(folder)
    before = view(map_, HERE)
    arrived = pickle.loads(pickle.dumps(map_))
    assert arrived.tiles.opened == ()
    assert_same(view(arrived, HERE), before)


# --- damage: one tile is refused, the rest serves -------------------------------------------------


def damage(folder: Path, how: str, name: str = "tile_2_0.safetensors") -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-99] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content if how == "altered" else content[:-100])


@pytest.mark.parametrize("how", ["altered", "truncated", "missing"])
def test_a_damaged_tile_is_refused_by_name_and_the_rest_serves(folder, copy, how, caplog):
    damage(copy, how)
    map_, sound = Map.load(copy, tiles=NOTHING_AHEAD), Map.load(folder)
    assert_same(view(map_, 300.0), view(sound, 300.0))
    seen = view(map_, INSIDE)
    assert len(seen) > 20
    assert tiles_of(map_, seen) == {"1_0"}
    assert tiles_of(sound, view(sound, INSIDE)) == {"1_0", "2_0"}
    assert list(map_.tiles.refused) == ["2_0"]
    assert "tile_2_0.safetensors" in map_.tiles.refused["2_0"]
    assert "tile 2_0 of the map is refused" in caplog.text
    assert len(map_.points_map()) < sound.point_count


def test_a_map_that_is_written_over_while_it_is_in_use_serves_what_is_open(copy):
    map_ = Map.load(copy, tiles=NOTHING_AHEAD)
    before = view(map_, INSIDE)
    for path in copy.glob("*.safetensors"):
        path.write_bytes(b"")  # in place, as scp does
    assert_same(view(map_, INSIDE), before)
    assert len(view(map_, 300.0)) == 0
    assert all("was altered" in why for why in map_.tiles.refused.values())
    assert set(map_.tiles.refused).isdisjoint(map_.tiles.opened)
    assert {"1_0", "2_0"} <= set(map_.tiles.opened)


def test_damage_is_told_by_verify_doctor_and_crop(copy, tmp_path):
    damage(copy, "altered")
    (problem,) = find_problems(copy)
    assert "tile_2_0.safetensors was altered" in problem
    (finding,) = [f for f in examine(copy) if f.subject.startswith("map")]
    assert not finding.fine
    count = len(schema.read(copy)[0].tiles)
    assert f"{count - 1} of {count} tiles serve" in finding.detail and "tile_2_0" in finding.detail
    whole = [-1e4, -1e4], [1e4, 1e4]
    with pytest.raises(MapError, match="tile_2_0"):
        edit.crop(Map.load(copy), *whole, tmp_path / "part", False)
    assert not (tmp_path / "part").exists()


def test_a_map_without_any_tile_left_is_refused(copy):
    for path in copy.glob("tile_*"):
        path.unlink()
    with pytest.raises(MapError, match=r"tile_0_0\.safetensors is missing; copy the map again"):
        Map.load(copy)


def test_command_line_cuts_anew_and_tells_of_tiles(folder, tmp_path):
    output = str(tmp_path / "fine")
    corners = ["--from", "-9999,-9999", "--to", "9999,9999"]
    arguments = ["crop", str(folder), *corners, "--output", output, "--tile", "20"]
    made = CliRunner().invoke(app, [*arguments, "--rows", "float16"], catch_exceptions=False)
    assert made.exit_code == 0
    assert Map.load(output).metadata.row_type == "float16"
    (tmp_path / "fine" / "tile_5_0.safetensors").unlink()
    shown = CliRunner().invoke(app, ["info", output]).output
    assert "of 20 m" in shown and "refused" in shown and "tile_5_0" in shown
    with pytest.raises(MapError, match="1 problem"):
        CliRunner().invoke(app, ["verify", output], catch_exceptions=False)


# --- cut again, joined, stored otherwise ----------------------------------------------------------


def test_other_tiles_same_map(folder, tmp_path):
    stored = edit.StoredMap(tile_m=20)
    fine = edit.crop(Map.load(folder), [-1e4, -1e4], [1e4, 1e4], tmp_path / "fine", False, stored)
    assert find_problems(tmp_path / "fine") == []
    assert len(fine.tiles) > 25
    for along_m in (1.0, 99.0, 301.0):
        assert_same(view(fine, along_m), view(Map.load(folder), along_m))


def test_parts_cut_amid_a_tile_and_joined_are_the_map(folder, tmp_path):
    whole = Map.load(folder)
    for name, low, high in (("a", -1e4, 199.0), ("b", 199.0, 1e4)):
        part = edit.crop(whole, [low, -1e4], [high, 1e4], tmp_path / name, False)
        assert find_problems(tmp_path / name) == []
        assert 0 < part.point_count < whole.point_count
    parts = [(name, Map.load(tmp_path / name)) for name in ("a", "b")]
    merged = merge(parts, tmp_path / "ab", False).map
    assert find_problems(tmp_path / "ab") == []
    assert [t.id for t in merged.metadata.tiles] == [t.id for t in whole.metadata.tiles]
    for along_m in (10.0, 150.0, 260.0, 400.0):
        assert_same(view(merged, along_m), view(whole, along_m))


def test_int8_rows_halve_the_map_and_keep_directions(tmp_path):
    wide = replace(SMALL, dims=(128, 64, 32), points=1000, row_type="float16")
    write_invented_map(wide, tmp_path / "float16")
    whole = Map.load(tmp_path / "float16")
    stored = edit.StoredMap(row_type="int8")
    small = edit.crop(whole, [-1e4, -1e4], [1e4, 1e4], tmp_path / "int8", False, stored)
    assert find_problems(tmp_path / "int8") == []
    assert small.metadata.row_type == "int8"
    sizes = [sum(tile.bytes for tile in m.metadata.tiles) for m in (small, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    a, b = view(small, HERE / 2), view(whole, HERE / 2)
    assert a.keyframes == b.keyframes and torch.equal(a.points, b.points)
    for x, y in zip(a.features, b.features, strict=True):
        assert ((x * y).sum(-1) > 0.999).all()
    again = edit.crop(small, [-1e4, -1e4], [1e4, 1e4], tmp_path / "again", False)
    assert again.sha256 == small.sha256


def test_maps_of_other_row_types_are_joined(folder, tmp_path):
    whole = Map.load(folder)
    halves = []
    for name, low, high, rows in (("a", -1e4, 199.0, "float16"), ("b", 199.0, 1e4, "int8")):
        corners, stored = ([low, -1e4], [high, 1e4]), edit.StoredMap(row_type=rows)
        halves.append((name, edit.crop(whole, *corners, tmp_path / name, False, stored)))
    for row_type in ("float16", "int8"):
        output, stored = tmp_path / row_type, edit.StoredMap(row_type=row_type)
        merged = merge(halves, output, False, stored).map
        assert find_problems(output) == []
        for along_m in (100.0, 300.0):
            a, b = view(merged, along_m), view(whole, along_m)
            for x, y in zip(a.features, b.features, strict=True):
                assert ((x * y).sum(-1) > 0.999).all()


def test_int8_keeps_unit_rows_and_rows_of_zeros():
    rows = torch.nn.functional.normalize(torch.randn(100, 128, generator=torch.manual_seed(0)))
    rows[0] = 0.0
    restored = unit_rows(as_int8(rows.half()))
    assert (restored - rows).norm(dim=-1).max() < 0.01
    assert (restored[0] == 0).all()


def in_this_process(work, *arguments):
    return work(*arguments)


def test_figures_of_a_small_map(tmp_path):
    config = Config(threads=1, tiles=TilesConfig(budget_mb=3.0))
    figures = measure(5000, tmp_path / "map", config, run=in_this_process)
    assert figures.points == pytest.approx(5000, abs=222)
    assert figures.bytes == sum(path.stat().st_size for path in (tmp_path / "map").iterdir())
    assert figures.start.first_pose_ms > figures.start.load_ms + figures.start.first_view_ms
    assert 0 < figures.driving.open_mb <= 3.0 and figures.driving.view_ms > 0
