"""Maps behind a URL: the same views, nothing but what was built, and no wait on the road."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.map_server import MapServer, serving
from pixloc_ros.cli.map import app
from pixloc_ros.config import TilesConfig, ViewConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.maps import schema, transport
from pixloc_ros.maps.build import published
from pixloc_ros.maps.disk_cache import DiskCache
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import MapView, select_view
from research.invented_map import CAMERA, InventedMap, camera_poses, write_invented_map

VIEW = ViewConfig(keyframes=3, max_points=150)
SMALL = InventedMap(6000, points_per_m=10, dims=(8, 6, 4), descriptor=16, tile_m=50.0)
HERE, BORDER, FAR = 100.0, 73.5, 400.0  # metres along the road: in tile 2_0, at 1_0, in 8_0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "campus"
    write_invented_map(SMALL, folder)
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[MapServer]:
    shutil.copytree(folder, tmp_path / "www" / "campus")
    with serving(tmp_path / "www") as server:
        yield server


@pytest.fixture
def tiles(tmp_path: Path) -> TilesConfig:
    return TilesConfig(cache_folder=str(tmp_path / "cache"), prefetch_m=0.0, fetch_ahead_m=0.0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The fetcher's: it goes on when a test says so. Pauses of readers that wait are recorded.

    And no cache is that of the user.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clock = SimpleNamespace(now_s=0.0, pauses_s=[])
    stopped = SimpleNamespace(monotonic=lambda: clock.now_s)
    monkeypatch.setattr("pixloc_ros.maps.fetcher.time", stopped)
    waiting = SimpleNamespace(sleep=clock.pauses_s.append)
    monkeypatch.setattr("pixloc_ros.maps.retries.time", waiting)
    return clock


def load(server: MapServer, tiles: TilesConfig, wait: bool = True) -> Map:
    map_ = Map.load(f"{server.url}/campus", tiles=tiles)
    if not wait:
        map_.tiles.never_wait()
    return map_


def view(map_: Map, along_m: float) -> MapView:
    return select_view(map_, camera_poses(np.array([along_m / 3.0]))[0], CAMERA, VIEW)


def assert_same(a: MapView, b: MapView) -> None:
    assert len(a) > 100 and a.keyframes == b.keyframes
    for x, y in zip(
        (a.points, *a.features, *a.confidences),
        (b.points, *b.features, *b.confidences),
        strict=True,
    ):
        assert torch.equal(x, y)


def settle(map_: Map) -> None:
    assert map_.tiles.fetcher is not None
    map_.tiles.fetcher.settle()


# --- as from a folder -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folder", "published"])
def test_views_are_those_of_the_folder_to_the_last_bit(folder, server, tiles, layout):
    if layout == "published":
        shutil.rmtree(server.folder / "campus")
        published.publish(folder, server.folder / "campus")
    map_, local = load(server, tiles), Map.load(folder)
    assert map_.sha256 == local.sha256
    for along_m in (HERE, BORDER, FAR):
        assert_same(view(map_, along_m), view(local, along_m))
    needed = [path for path in server.asked if "tile" in path or "files" in path]
    assert len(needed) < len(map_.tiles), "fetched what no view needs"


def test_what_is_in_the_cache_is_not_fetched_again(server, tiles):
    view(load(server, tiles), HERE)
    asked = len(server.asked)
    map_ = pickle.loads(pickle.dumps(load(server, tiles)))  # as for another process
    view(map_, HERE)
    assert server.asked[asked:] == ["/campus/map.json"]


def test_a_map_is_taken_along_whole(folder, server, tmp_path):
    published.fetch(f"{server.url}/campus", tmp_path / "along")
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in (tmp_path / "along").iterdir()} == names
    for name in names:
        assert (tmp_path / "along" / name).read_bytes() == (folder / name).read_bytes()
    server.lie.add("tile_3_0")
    with pytest.raises(MapError, match="tile_3_0"):
        published.fetch(f"{server.url}/campus", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_info_describes_a_map_behind_a_url(server):
    said = CliRunner().invoke(app, ["info", f"{server.url}/campus"]).stdout
    count = len(schema.read(server.folder / "campus")[0].tiles)
    assert f"{count} of 50 m" in said and "size of tiles" in said
    assert not any("tile_" in path for path in server.asked)


# --- on the road: never waits ---------------------------------------------------------------------


def test_a_frame_does_not_wait_for_a_tile(folder, server, tiles):
    map_ = load(server, tiles, wait=False)
    server.held.add("tile_2_0")
    seen = view(map_, HERE)  # would hang here
    assert seen.missing[0] == "2_0" and "2_0" in map_.tiles.missing
    server.release()
    settle(map_)
    assert_same(view(map_, HERE), view(Map.load(folder), HERE))
    assert not map_.tiles.missing and not map_.tiles.refused


def test_tiles_on_the_way_come_before_those_behind(server, tiles):
    ahead = tiles.model_copy(update={"fetch_ahead_m": 120.0})
    map_ = load(server, ahead, wait=False)
    view(map_, 185.0)
    settle(map_)
    first = len(server.asked)
    view(map_, 215.0)
    settle(map_)
    come = [path.split("tile_")[1][0] for path in server.asked[first:] if "tile_" in path]
    assert come == sorted(come) and come, "driving on, the nearest ahead first"
    view(load(server, ahead, wait=False), 215.0)
    assert not load(server, ahead).tiles.missing


@pytest.mark.parametrize("fault", ["cut", "lie", "endless", "down"])
def test_a_tile_that_cannot_be_had_is_named_and_tried_again(folder, server, tiles, fault, clock):
    map_ = load(server, tiles, wait=False)
    if fault == "down":
        server.down = True
    else:
        getattr(server, fault).add("tile_2_0")
    assert view(map_, BORDER).missing
    settle(map_)
    seen = view(map_, BORDER)
    assert seen.missing and "tile_2_0" in map_.tiles.missing["2_0"]
    assert not map_.tiles.refused
    server.down = False
    for faults in (server.cut, server.lie, server.endless):
        faults.clear()
    clock.now_s += 0.5
    view(map_, BORDER)
    settle(map_)
    assert view(map_, BORDER).missing, "it was asked for again at once"
    clock.now_s += 5.0
    view(map_, BORDER)
    settle(map_)
    assert_same(view(map_, BORDER), view(Map.load(folder), BORDER))


def test_without_a_network_it_drives_on_and_starts_again(folder, server, tiles):
    map_ = load(server, tiles, wait=False)
    view(map_, HERE)
    settle(map_)
    server.down = True
    for _ in range(2):  # the second one was started without a network
        assert_same(view(map_, HERE), view(Map.load(folder), HERE))
        assert "8_0" in view(map_, FAR).missing
        map_ = load(server, tiles, wait=False)


def test_reading_for_a_replay_waits_and_refuses_what_cannot_be_had(folder, server, tiles, clock):
    map_ = load(server, tiles)
    server.cut.add("tile_8_0")
    assert len(view(map_, FAR)) == 0
    assert "tile_8_0" in map_.tiles.refused["8_0"]
    assert clock.pauses_s == [1.0, 2.0, 4.0]


def test_connections_that_break_are_tried_again(folder, server, tiles, clock, tmp_path):
    server.cut_next.update({"map.json": 2, "keyframes": 1, "tile_2_0": 3})
    map_ = load(server, tiles)
    assert_same(view(map_, HERE), view(Map.load(folder), HERE))
    assert clock.pauses_s == [1.0, 2.0, 4.0] * 2
    server.cut_next.update({"map.json": 3, "tile_8_0": 1})
    published.fetch(f"{server.url}/campus", tmp_path / "along")
    assert (tmp_path / "along" / "tile_8_0.safetensors").read_bytes() == (
        folder / "tile_8_0.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("fault", ["lie", "gone"])
def test_what_another_attempt_would_not_mend_is_refused_at_once(
    folder, server, tiles, clock, fault
):
    map_ = load(server, tiles)
    if fault == "lie":
        server.lie.add("tile_8_0")
    else:
        (server.folder / "campus" / "tile_8_0.safetensors").unlink()
    assert len(view(map_, FAR)) == 0 and not clock.pauses_s


# --- versions -------------------------------------------------------------------------------------


def another_version(server: MapServer, folder: Path) -> str:
    other = InventedMap(6000, points_per_m=9, dims=(8, 6, 4), descriptor=16, tile_m=50.0)
    return write_invented_map(other, folder)


def test_a_version_is_never_mixed_with_another(folder, server, tiles, tmp_path):
    map_ = load(server, tiles, wait=False)
    sha256 = another_version(server, server.folder / "campus")
    view(map_, HERE)
    settle(map_)
    assert f"version {sha256[:12]} has taken its place" in map_.tiles.missing["2_0"]
    newer = load(server, tiles)
    assert newer.sha256 == sha256
    assert_same(view(newer, HERE), view(Map.load(server.folder / "campus"), HERE))


def test_published_versions_lie_beside_each_other(folder, server, tiles, tmp_path):
    www = server.folder / "town"
    published.publish(folder, www)
    map_ = Map.load(f"{server.url}/town", tiles=tiles)
    another_version(server, tmp_path / "other")
    published.publish(tmp_path / "other", www)
    assert_same(view(map_, FAR), view(Map.load(folder), FAR))
    assert Map.load(f"{server.url}/town", tiles=tiles).sha256 != map_.sha256


def test_a_version_whose_keyframes_cannot_be_had_is_not_taken(server, tiles):
    before = load(server, tiles).sha256
    another_version(server, server.folder / "campus")
    server.cut.add("keyframes")
    assert load(server, tiles).sha256 == before


# --- hostile --------------------------------------------------------------------------------------


def rewrite(server: MapServer, **changes: object) -> None:
    """Give the map.json other content, with a hash that fits."""
    folder = server.folder / "campus"
    metadata, _ = schema.read(folder)
    schema.write(metadata.model_copy(update=changes), folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", ".hidden", "a\\b", ""])
def test_names_that_lead_elsewhere_are_refused(server, tiles, name):
    metadata, _ = schema.read(server.folder / "campus")
    rewrite(server, files=metadata.files | {name: "0" * 64})
    with pytest.raises(MapError, match="not the name of a file"):
        load(server, tiles)


def test_a_hash_that_is_a_path_is_refused(server, tiles):
    metadata, _ = schema.read(server.folder / "campus")
    rewrite(server, files=metadata.files | {"x": "../../x"})
    with pytest.raises(MapError, match="the hash of 'x'"):
        load(server, tiles)


def test_a_tile_too_large_for_the_cache_is_refused_before_it_is_fetched(server, tiles):
    metadata, _ = schema.read(server.folder / "campus")
    huge = metadata.tiles[0].model_copy(update={"bytes": 10**15})
    rewrite(server, tiles=(huge, *metadata.tiles[1:]))
    assert "cache_mb" in load(server, tiles).tiles.refused[huge.id]
    assert not any(huge.file in path for path in server.asked)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://127.0.0.1:1/", "/campus/map.json"]
)
def test_redirects_are_not_followed(server, tiles, target):
    server.redirect["map.json"] = target
    with pytest.raises(MapError, match="answered with 302"):
        Map.load(f"{server.url}/campus", tiles=tiles)


@pytest.mark.parametrize("url", ["ftp://host/map", "https://host/a::http://b", "data://x"])
def test_other_protocols_are_refused(tiles, url):
    with pytest.raises(ConfigError, match="begins with"):
        Map.load(url, tiles=tiles)


def test_a_server_that_drips_is_given_up(server, tiles, monkeypatch):
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    with pytest.raises(MapError, match="too slow"):
        load(server, tiles)


def test_secrets_of_a_url_are_not_told(server, tiles):
    url = f"{server.url}/nowhere".replace("http://", "http://user:secret@")
    with pytest.raises(MapError) as error:
        Map.load(url, tiles=tiles)
    assert "secret" not in str(error.value)


# --- the cache ------------------------------------------------------------------------------------


def test_an_altered_file_of_the_cache_is_fetched_again(folder, server, tiles):
    view(load(server, tiles), HERE)
    for path in Path(tiles.cache_folder).iterdir():
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    assert_same(view(load(server, tiles), HERE), view(Map.load(folder), HERE))


def test_the_cache_stays_within_its_size_when_two_use_it(folder, server, tiles):
    size = max(tile.bytes for tile in schema.read(folder)[0].tiles)
    small = tiles.model_copy(update={"cache_mb": 4 * size / 1e6 + 1.0})
    maps = [load(server, small) for _ in range(2)]

    def drive(map_: Map, road_m: np.ndarray) -> None:
        for along_m in road_m:
            view(map_, along_m)

    road_m = np.arange(0.0, 550.0, 20.0)
    threads = [
        threading.Thread(target=drive, args=(map_, road))
        for map_, road in zip(maps, (road_m, road_m[::-1]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not maps[0].tiles.refused and not maps[1].tiles.refused
    files = [path for path in Path(tiles.cache_folder).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= small.cache_mb * 1e6
    keyframes = schema.read(folder)[0].files[maps[0].metadata.keyframes_file]
    assert DiskCache(Path(tiles.cache_folder), 0).has(keyframes), "it is needed for every start"


def test_a_full_disk_is_told(folder, server, tiles, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MapError, match="file"):
        load(server, tiles.model_copy(update={"cache_folder": str(tmp_path / "file")}))


def test_map_json_in_the_cache_is_checked(server, tiles):
    load(server, tiles)
    (kept,) = (Path(tiles.cache_folder) / "maps").iterdir()
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps(content | {"points": 1}))
    server.down = True
    with pytest.raises(MapError, match="altered"):
        load(server, tiles)
