"""A live node with a calibration file, of a camera that publishes no camera_info."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.messages import shifted, without
from helpers.node_checks import examine
from pixloc_ros.replay.calibration_file import calibration_yaml
from pixloc_ros.sensors import decoding

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture
def calibrated(street: Path, bag: Any, tmp_path: Path, domain: int) -> Iterator[Any]:
    """A rig that publishes no camera_info, with a node that has the calibration's file."""
    from helpers.live import Rig, running_node

    file = tmp_path / "camera.yaml"
    file.write_text(calibration_yaml(decoding.camera(bag.on("/camera_info")[0]), "front"))
    parameters = {"map": street / "map", "node.diagnostics_rate_hz": 10.0, "threads": 1}
    parameters["node.camera_info_url"] = f"file://{file}"
    with (
        running_node(tmp_path / "log.txt", domain, **parameters),
        Rig(domain, without=["/camera_info"]) as rig,
    ):
        rig.until(rig.connected, "rig and node to find each other", 600.0)
        yield rig


def test_images_are_localized_and_another_size_is_named(
    calibrated: Any, domain: int, bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensor_msgs.msg import Image

    rig = calibrated
    messages = [each for each in without(bag) if each[0] != "/camera_info"][:40]
    verdicts = rig.play(messages)
    assert any(v.localized for v in verdicts), [v.message for v in verdicts]
    assert rig.node.count_subscribers("/camera_info") == 0

    def feed() -> None:
        rig.send("/image", bag.on("/image")[0])
        rig.until(lambda: True, "")

    def not_demanded(findings: dict[str, Any]) -> None:
        assert {"mounting", "/image"} <= findings.keys()
        assert findings["mounting"].fine and findings["/image"].fine
        assert not {"/camera_info", "camera frame", "image size"} & findings.keys()

    examine(monkeypatch, domain, feed, not_demanded)
    last = bag.on("/image")[-1]
    small = Image(header=last.header, width=64, height=48, encoding="mono8", step=64)
    small.data = bytes(64 * 48)
    verdict = rig.look(small)
    assert verdict.reason == "bad_image"
    assert "image is 64x48, calibrated for 320x" in verdict.message
    ticks = iter(range(1, 10_000))

    def feed_small() -> None:
        rig.send("/image", shifted(small, 0.05 * next(ticks)))
        rig.until(lambda: True, "")

    def cannot_work(findings: dict[str, Any]) -> None:
        assert "calibrated for 320x" in findings["/pixloc_localizer"].detail
        assert findings["/pixloc_localizer"].needed and not findings["/pixloc_localizer"].fine

    examine(monkeypatch, domain, feed_small, cannot_work)


def test_a_file_that_is_missing_is_named_when_the_node_starts(
    street: Path, tmp_path: Path, domain: int
) -> None:
    from helpers.live import Rig, running_node

    file = tmp_path / "missing.yaml"
    parameters = {"map": street / "map", "node.camera_info_url": file}
    with running_node(tmp_path / "log.txt", domain, **parameters), Rig(domain) as rig:
        rig.until(lambda: f"cannot read {file}: No such file" in rig.state, "the fault")
        assert rig.lifecycle_state() == "unconfigured"
