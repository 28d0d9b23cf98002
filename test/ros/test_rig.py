"""A vehicle with two cameras: in replays and on the live node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.events import with_image
from helpers.rig_bag import write_rig_bag
from pixloc_ros.config import from_flat
from pixloc_ros.errors import BagError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.localizer import Localizer
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate, Reason

pytestmark = pytest.mark.slow
CAMERAS = ("front", "left")


@pytest.fixture(scope="module")
def rig_bag(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rig_bag(street, tmp_path_factory.mktemp("rig") / "bag")


@pytest.fixture(scope="module")
def localizer(street: Path) -> Localizer:
    settings = {"map": str(street / "map"), "threads": 1, "node.cameras": ",".join(CAMERAS)}
    return Localizer(from_flat(settings))


def replayed(localizer: Localizer, events: list) -> list[Estimate]:
    return list(Session(localizer).run(events))


@pytest.fixture(scope="module")
def events(rig_bag: Path) -> list:
    with BagReader(rig_bag, cameras=CAMERAS) as reader:
        return list(reader)


def error_m(estimate: Estimate, truth: Trajectory) -> float:
    T_true = truth.at(estimate.stamp_ns)
    assert estimate.T_map_base is not None, estimate.message
    return float(se3.distance_m(estimate.T_map_base, T_true))


def test_a_bag_with_two_cameras_gives_one_pose_for_both(localizer, events, truth) -> None:
    estimates = replayed(localizer, events)
    assert len(estimates) == len(truth.stamps_ns)
    assert [e.cameras for e in estimates] == [CAMERAS] * len(estimates)
    assert max(error_m(e, truth) for e in estimates) < 0.05


def test_the_motion_between_the_cameras_is_accounted_for(localizer, events, truth) -> None:
    """The left images are 8 ms, 6 cm on the way, late: without odometry they pull the pose."""
    moving = replayed(localizer, events)
    late = [e for e in moving if e.ok]
    along = [(se3.inverse(truth.at(e.stamp_ns)) @ e.T_map_base)[0, 3] for e in late]
    assert abs(np.median(along)) < 0.006


def test_a_camera_that_fails_does_not_stop_the_other(localizer, events, truth) -> None:
    lefts = [e for e in events if isinstance(e, ImageEvent) and e.camera_name == "left"]
    lost, hung = lefts[2:5], {id(e) for e in lefts[8:]}
    fault = [
        with_image(e, lefts[7].image_rgb) if id(e) in hung else e
        for e in events
        if not any(e is gone for gone in lost)
    ]
    estimates = replayed(localizer, fault)
    assert all(e.ok for e in estimates), [e.message for e in estimates]
    seen = [e.cameras for e in estimates]
    assert seen[2:5] == [("front",)] * 3
    assert seen[:2] + seen[6:8] == [CAMERAS] * 4
    assert seen[8:] == [("front",)] * len(seen[8:]), "it hangs, and the vehicle moves on"
    assert max(error_m(e, truth) for e in estimates) < 0.05


def test_a_camera_that_hangs_alone_gives_no_pose(localizer, events) -> None:
    alone = [e for e in events if getattr(e, "camera_name", "") != "left"]
    images = [e for e in alone if isinstance(e, ImageEvent)]
    hung = {id(e) for e in images[4:]}
    alone = [with_image(e, images[3].image_rgb) if id(e) in hung else e for e in alone]
    estimates = replayed(localizer, alone)
    assert all(e.ok for e in estimates[1:4])
    assert {e.reason for e in estimates[4:]} == {Reason.FROZEN_IMAGE}


def test_a_camera_that_the_bag_lacks_is_named(rig_bag: Path) -> None:
    with pytest.raises(BagError, match=r"/right/image.*camera 'right'.*/front/image"):
        BagReader(rig_bag, cameras=("front", "right"))


# --- on the live node --------------------------------------------------------------------------


@pytest.fixture
def node(
    street: Path, tmp_path: Path, domain: int
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    from helpers.live import running_node

    parameters = {"map": street / "map", "node.diagnostics_rate_hz": 10.0, "threads": 1}
    parameters["node.cameras"] = ",".join(CAMERAS)
    with running_node(tmp_path / "log.txt", domain, **parameters) as process:
        yield process, domain


@pytest.mark.ros
def test_on_the_live_node_a_lost_camera_degrades_and_comes_back(
    node: tuple[subprocess.Popen[bytes], int], rig_bag: Path, truth: Trajectory
) -> None:
    from helpers.live import Bag, Rig

    recorded = Bag(rig_bag)
    with Rig(node[1], cameras=CAMERAS) as rig:
        rig.until(rig.connected, "the node's subscriptions")
        rig.until(rig.is_new, "the first report")

        def play(frames: range, *cameras: str) -> Any:
            """The messages of some frames; returns the verdict on the last one."""
            front = recorded.on("/front/image")
            for topic, message in recorded.between(front[frames.start], front[frames.stop]):
                if topic.split("/")[1] in (set(CAMERAS) - set(cameras)) and "image" in topic:
                    continue
                if "image" in topic:
                    rig.until(rig.arrived, "the arrival of what was sent")
                rig.send(topic, message)
            return rig.verdict_on(front[frames.stop - 1])

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
    node: tuple[subprocess.Popen[bytes], int], rig_bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.live import Bag, Rig
    from helpers.node_checks import examined

    recorded = Bag(rig_bag)
    front = recorded.on("/front/image")
    messages = recorded.between(front[0], front[2])
    with Rig(node[1], cameras=CAMERAS) as rig:
        rig.until(lambda: rig.is_new() and rig.connected(), "a node that begins anew")
        for topic, message in messages:
            if "image" in topic:
                rig.until(rig.arrived, "the arrival of what was sent")
            if topic != "/left/camera_info":
                rig.send(topic, message)
        verdict = rig.verdict_on(front[1])
        assert verdict.localized, verdict.message
        assert list(verdict.cameras) == ["front"]
        rig.until_state("camera left", "/front/image", front[1])

        fed = [(t, m) for t, m in dict(messages).items() if t != "/left/camera_info"]

        def feed() -> None:
            for topic, message in fed:
                rig.send(topic, message)
            rig.until(lambda: True, "")

        findings = examined(monkeypatch, node[1], feed)
    assert findings["camera frame of /front/image"].fine
    assert findings["image size of /front/image"].fine
    assert findings["/left/image"].fine
    assert findings["/left/camera_info"].detail.startswith("silent")
