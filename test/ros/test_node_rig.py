"""A vehicle with two cameras, on the live node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.domains import own_domain
from helpers.rig_bag import write_rig_bag
from pixloc_ros.config import from_flat
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.localizer import Localizer
from pixloc_ros.replay.bag_reader import BagReader

pytestmark = pytest.mark.slow
CAMERAS = ("front", "left")


@pytest.fixture(scope="module")
def rig_bag(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rig_bag(street, tmp_path_factory.mktemp("rig") / "bag")


@pytest.fixture(scope="module")
def localizer(street: Path) -> Localizer:
    settings = {"map": str(street / "map"), "threads": 1, "node.cameras": ",".join(CAMERAS)}
    return Localizer(from_flat(settings))


@pytest.fixture(scope="module")
def events(rig_bag: Path) -> list:
    with BagReader(rig_bag, cameras=CAMERAS) as reader:
        return list(reader)


@pytest.fixture(scope="module")
def node(
    street: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    from helpers.live import running_node

    parameters = {"map": street / "map", "node.diagnostics_rate_hz": 10.0, "threads": 1}
    parameters["node.cameras"] = ",".join(CAMERAS)
    log = tmp_path_factory.mktemp("node") / "log.txt"
    with own_domain() as domain, running_node(log, domain, **parameters) as process:
        yield process, domain


@pytest.fixture
def rig(node: tuple[subprocess.Popen[bytes], int]) -> Iterator[Any]:
    from helpers.live import fresh_rig

    process, domain = node
    with fresh_rig(domain, cameras=CAMERAS) as rig:
        yield rig
        assert process.poll() is None, "the node is gone"


@pytest.mark.ros
def test_the_player_does_not_wait_for_transforms_of_long_ago(
    rig: Any, node: tuple[subprocess.Popen[bytes], int], rig_bag: Path, tmp_path: Path
) -> None:
    """As recorders date what was latched: by the start of the machine, or of time."""
    from helpers.live import running_player

    with running_player(rig_bag, tmp_path / "log.txt", node[1]):
        rig.until(lambda: rig.statuses, "a frame")


@pytest.mark.ros
def test_on_the_live_node_a_lost_camera_degrades_and_comes_back(
    rig: Any, rig_bag: Path, truth: Trajectory
) -> None:
    from helpers.live import Bag

    recorded = Bag(rig_bag)

    def play(frames: range, *cameras: str) -> Any:
        """The messages of some frames; returns the verdict on the last one."""
        front, shown = recorded.on("/front/image"), {}
        for topic, message in recorded.between(front[frames.start], front[frames.stop]):
            if topic.split("/")[1] in (set(CAMERAS) - set(cameras)) and "image" in topic:
                continue
            if "image" in topic:
                rig.until(rig.arrived, "the arrival of what was sent")
                shown[topic] = message
            rig.send(topic, message)
        return rig.verdict_on_sent({"/front/image": front[frames.stop - 1]} | shown)

    def image(frame: int) -> tuple[str, Any]:
        topic = "/front/image"
        return topic, recorded.on(topic)[frame]

    both = play(range(0, 3), *CAMERAS)
    assert both.localized, both.message
    assert list(both.cameras) == list(CAMERAS)
    rig.until_state("TRACKING", *image(2))
    one = play(range(3, 6), "front")
    assert one.localized, one.message
    assert list(one.cameras) == ["front"]
    rig.until_state("DEGRADED: no image of camera left", *image(5))
    again = play(range(6, 10), *CAMERAS)
    assert list(again.cameras) == list(CAMERAS)
    rig.until_state("TRACKING", *image(9))
    rates = rig.report()
    assert float(rates["image rate left [Hz]"]) > 0
    for pose in rig.poses:
        stamp_ns = pose.header.stamp.sec * 10**9 + pose.header.stamp.nanosec
        xyz = pose.pose.pose.position
        assert np.linalg.norm(truth.at(stamp_ns)[:3, 3] - [xyz.x, xyz.y, xyz.z]) < 0.05


@pytest.mark.ros
@pytest.mark.slow
def test_a_camera_without_calibration_holds_up_no_other_and_the_doctor_names_it(
    rig: Any,
    node: tuple[subprocess.Popen[bytes], int],
    rig_bag: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from helpers.live import Bag
    from helpers.node_checks import examine

    recorded = Bag(rig_bag)
    front = recorded.on("/front/image")
    messages = recorded.between(front[0], front[2])
    for topic, message in messages:
        if "image" in topic:
            rig.until(rig.arrived, "the arrival of what was sent")
        if topic != "/left/camera_info":
            rig.send(topic, message)
    shown = {topic: dict(messages)[topic] for topic in ("/front/image", "/left/image")}
    verdict = rig.verdict_on_sent(shown)
    assert verdict.localized, verdict.message
    assert list(verdict.cameras) == ["front"]
    rig.until_state("camera left", "/front/image", front[1])

    fed = [(t, m) for t, m in dict(messages).items() if t != "/left/camera_info"]

    def feed() -> None:
        for topic, message in fed:
            rig.send(topic, message)
        rig.until(lambda: True, "")

    def named(findings: dict[str, Any]) -> None:
        assert {"camera frame of /front/image", "/left/image"} <= findings.keys()
        assert findings["camera frame of /front/image"].fine
        assert findings["image size of /front/image"].fine
        assert findings["/left/image"].fine
        assert findings["/left/camera_info"].detail.startswith("silent")

    examine(monkeypatch, node[1], feed, named)
