"""A node that no sensor tells where it is searches the map, and remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.messages import up_to_frame, without
from helpers.priors import accepted, at_s
from pixloc_ros.types import Estimate, PosePrior


def found(
    stamp_s: float, T_map_base: np.ndarray, prior: PosePrior | None = None, source: str = ""
) -> Estimate:
    """What the localizer accepted, from this prior or from one of this source."""
    prior = prior or PosePrior(T_map_base, np.eye(6), source or "retrieval", at_s(stamp_s))
    return replace(accepted(at_s(stamp_s), T_map_base), prior=prior)


@pytest.fixture
def searching(
    street: Path, tmp_path: Path, domain: int
) -> Callable[[str], AbstractContextManager[tuple[Any, Any]]]:
    """Starts nodes that search and remember, one after the other: each with a rig."""
    from helpers.live import Rig, running_node

    @contextmanager
    def start(log: str) -> Iterator[tuple[Any, Any]]:
        parameters = {"map": street / "map", "threads": 1, "node.diagnostics_rate_hz": 10.0}
        parameters["node.last_pose_file"] = tmp_path / "last_pose.json"
        with running_node(tmp_path / log, domain, **parameters) as process, Rig(domain) as rig:
            rig.until(rig.connected, "the node's subscriptions")
            rig.until(rig.is_new, "the first report")
            yield rig, process

    return start


@pytest.mark.ros
@pytest.mark.slow
def test_a_node_that_is_told_nothing_finds_itself_and_remembers(
    searching: Any, bag: Any, truth: Any, tmp_path: Path
) -> None:
    """First by searching the map, then on request, then after a restart where it was."""
    from helpers.node_checks import relocalize

    messages = without(bag, "/gnss/fix", "/initialpose")
    first, second, third, fourth = (up_to_frame(messages, count) for count in (1, 2, 3, 6))
    with searching("first.txt") as (rig, _):
        rig.play(first)
        verdicts = rig.play(second[len(first) :]) + rig.play(third[len(second) :])
        assert [v.reason for v in rig.statuses] == ["unconfirmed", "ok", "ok"]
        assert rig.statuses[0].prior_source == "retrieval"
        assert verdicts[-1].prior_source == "odometry"
        rig.until(lambda: len(rig.poses) == 2, "poses of the second and third frame only")
        answer = relocalize(rig)
        rig.play(fourth[len(third) :])
        rig.until(answer.done, "the answer")
        result = answer.result()
        assert (result.success, result.code, result.frames) == (True, "ok", 2), result.message
        found = result.pose.pose.pose.position
        place = truth.T_map_base[:, :2, 3] - [found.x, found.y]
        assert np.linalg.norm(place, axis=1).min() < 0.1
    assert (tmp_path / "last_pose.json").exists()
    rest = up_to_frame(messages, 8)
    with searching("second.txt") as (rig, _):
        begin = [(topic, m) for topic, m in fourth if topic != "/image"]
        rig.play(begin + rest[len(fourth) :])
        assert [v.reason for v in rig.statuses] == ["unconfirmed", "ok"]
        assert {v.prior_source for v in rig.statuses} == {"last_pose"}
