"""A map behind a URL, on the live node: nothing that the server does stops it or fools it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.map_server import MapServer, serving
from helpers.messages import up_to_frame, without
from helpers.node_checks import assert_no_wrong_pose, frames, reasons
from pixloc_ros.config import TilesConfig
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.maps.build import edit, published
from pixloc_ros.maps.map import Map

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def cut(street: Path, output: Path, tile_m: float) -> Map:
    """The map of the street in tiles of another size."""
    whole = [-1e4, -1e4], [1e4, 1e4]
    return edit.crop(Map.load(street / "map"), *whole, output, True, edit.StoredMap(tile_m=tile_m))


@pytest.fixture
def server(street: Path, tmp_path: Path) -> Iterator[MapServer]:
    (tmp_path / "www").mkdir()
    cut(street, tmp_path / "www" / "street", 4.0)
    with serving(tmp_path / "www") as server:
        yield server


@pytest.fixture
def rig(server: MapServer, domain: int, tmp_path: Path) -> Iterator[Any]:
    from helpers.live import fresh_rig, running_node

    parameters = {"map": f"{server.url}/street", "node.map_root": server.url, "threads": 1}
    parameters |= {"node.diagnostics_rate_hz": 10.0, "retrieval.enabled": False}
    parameters |= {"tiles.cache_folder": tmp_path / "cache"}
    server.lie.add("tile")
    with (
        running_node(tmp_path / "log.txt", domain, **parameters) as process,
        fresh_rig(domain) as rig,
    ):
        yield rig
        assert process.poll() is None, "the node is gone"


def test_a_drive_on_a_map_whose_server_lies_recovers_changes_and_goes_away(
    rig: Any, server: MapServer, street: Path, bag: Any, truth: Trajectory, tmp_path: Path
) -> None:
    from pixloc_ros.srv import LoadMap

    def told(words: str) -> bool:
        return words in rig.diagnostics.get("map tiles missing", "")

    messages = without(bag)
    tiles = len(list((server.folder / "street").glob("tile*")))
    assert tiles >= 3
    # Every tile has one wrong byte.
    (verdict,) = rig.play(up_to_frame(messages, 1))
    assert (verdict.localized, verdict.reason) == (False, "tiles_missing")
    rig.until(lambda: told("was altered"), "the diagnostics to name the wrong bytes")
    # The server is put right: what failed is tried again.
    server.lie.clear()
    played = 1
    while not rig.report()["map tiles fetched"].startswith(f"{tiles}, "):
        time.sleep(TilesConfig().fetch_retry_s)
        rig.play(frames(messages, played, played + 1))
        played += 1
    # It goes away, and another version takes the place of the map.
    server.down = True
    assert reasons(rig.play(frames(messages, played, played + 2))) == ["ok", "ok"]
    assert rig.report()["map tiles missing"] == "none"
    server.down = False
    sha256 = rig.report()["map sha256"]
    other = cut(street, tmp_path / "other", 6.0)
    published.publish(tmp_path / "other", server.folder / "street")
    assert reasons(rig.play(frames(messages, played + 2, played + 3))) == ["ok"]
    assert rig.report()["map sha256"] == sha256
    # Taken when it is asked for, as a whole.
    answer = rig.call(LoadMap, "load_map", LoadMap.Request(name="street"))
    assert answer.success and answer.map_sha256 == other.sha256 != sha256, answer.message
    assert not rig.call(LoadMap, "load_map", LoadMap.Request(name="../street")).success
    assert_no_wrong_pose(rig, truth)
