"""The live node records accepted frames, and the map is updated with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.messages import up_to_frame, without
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.files.session_folder import read_session
from pixloc_ros.maps.held_queries import HeldScore
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.update.updater import update_map
from pixloc_ros.sensors import decoding


@pytest.mark.ros
@pytest.mark.slow
def test_a_session_that_the_node_recorded_updates_the_map(
    rig: Any, bag: Any, street: Path, tmp_path: Path
) -> None:
    verdicts = rig.play(up_to_frame(without(bag), 7))
    accepted = [decoding.stamp_ns(v.header) for v in verdicts if v.localized]
    rig.until(lambda: len(rig.poses) == len(accepted), "a pose for each accepted frame")
    # Images are 0.8 m apart, farther than recorded frames need to be.
    wanted = str(len(accepted))
    rig.until(lambda: rig.diagnostics.get("count session.recorded") == wanted, "all frames")
    folder = Path(rig.parameters("node.record_sessions")[0])
    newest = max(folder.iterdir(), key=lambda path: (path / "session.json").stat().st_mtime)
    map_ = Map.load(street / "map")
    session = read_session(newest, map_)
    assert [frame.stamp_ns for frame in session.frames] == accepted
    assert session.images == len(verdicts)
    for frame, published in zip(session.frames, rig.poses, strict=True):
        assert np.allclose(frame.T_map_base, decoding.pose(published.pose.pose), atol=1e-9)
        assert frame.read_image().shape == (192, 320, 3)

    new, alike = tmp_path / "new", HeldScore(1.0, 0.01)
    update_map(street / "map", session, FeatureExtractor(), lambda *_: alike, new)
    (entry,) = Map.load(new).metadata.history
    assert (entry.name, entry.frames) == (newest.name, len(accepted))
    assert Map.load(street / "map").sha256 == map_.sha256
