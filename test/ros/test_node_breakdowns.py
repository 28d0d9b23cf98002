"""The node itself fails: it says so, publishes no wrong pose, and recovers with the cause gone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.domains import own_domain
from helpers.faulty_node import taken
from helpers.messages import up_to_frame, without
from helpers.node_checks import assert_no_wrong_pose, frames, reasons, state
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.sensors import decoding

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class FaultyNode:
    """A node whose aligner fails as the file says. It waits for a clock that nobody publishes."""

    process: subprocess.Popen[bytes]
    domain: int
    orders: Path

    def order(self, fault: str) -> None:
        taken(self.orders).unlink(missing_ok=True)
        write_text(self.orders, fault)

    def works(self) -> bool:
        """Whether a frame is held up by the order."""
        return taken(self.orders).exists()


@pytest.fixture(scope="module")
def faulty(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyNode]:
    from helpers.live import running_node

    folder = tmp_path_factory.mktemp("faulty")
    orders = folder / "orders"
    orders.touch()
    parameters = {"map": street / "map", "node.diagnostics_rate_hz": 10.0, "threads": 1}
    parameters |= {"retrieval.enabled": False, "use_sim_time": True}
    parameters |= {"node.calibration_wait_s": 60.0}  # of a clock that does not know a busy machine
    program = Path(__file__).parents[1] / "helpers" / "faulty_node.py", orders
    with (
        own_domain() as domain,
        running_node(folder / "log.txt", domain, program=program, **parameters) as process,
    ):
        yield FaultyNode(process, domain, orders)


@pytest.fixture
def rig(faulty: FaultyNode) -> Iterator[Any]:
    from helpers.live import fresh_rig

    faulty.order("")
    with fresh_rig(faulty.domain) as rig:
        yield rig


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        ("out of memory", "out_of_memory", "Tried to allocate"),
        ("defect", "internal_error", "IndexError: list index out of range"),
    ],
)
def test_a_frame_that_breaks_is_told_and_the_next_ones_are_localized(
    faulty: FaultyNode, rig: Any, bag: Any, truth: Any, fault: str, reason: str, message: str
) -> None:
    messages = without(bag)
    faulty.order(fault)
    verdicts = rig.play(up_to_frame(messages, 2))
    assert reasons(verdicts) == [reason] * 2
    assert message in verdicts[0].message
    assert "\n" not in verdicts[0].message
    first = "ERROR" if fault == "defect" else "INITIALIZING"
    assert state(rig) == (first, reason)
    faulty.order("")
    assert all(v.localized for v in rig.play(frames(messages, 2, 5)))
    faulty.order(fault)
    assert reasons(rig.play(frames(messages, 5, 7))) == [reason] * 2
    name, told = state(rig)
    assert name in ("COASTING", "LOST", "ERROR") and told == reason, rig.state
    faulty.order("")
    verdicts = rig.play(frames(messages, 7))
    assert [(v.reason, v.prior_source) for v in verdicts] == [("ok", "odometry")] * len(verdicts)
    assert_no_wrong_pose(rig, truth)


def test_ten_images_a_second_into_a_machine_that_does_two(
    faulty: FaultyNode, rig: Any, bag: Any, truth: Any
) -> None:
    rig.play(up_to_frame(without(bag), 1))
    rig.forget()
    faulty.order("wait")  # until an image is dropped, however slowly this machine sends them
    dropping, images = "count image.dropped", []
    for topic, message in frames(without(bag), 1):
        rig.send(topic, message)
        if topic == "/image":
            images.append(decoding.stamp_ns(message.header))
            end_s = time.monotonic() + 0.1
            rig.until(lambda end_s=end_s: time.monotonic() > end_s, "the next image")
        if len(images) == 1:
            rig.until_shown("/image", bag.on("/image")[1], faulty.works, "a frame in work")
        if dropping in rig.diagnostics:
            faulty.order("slow")
    rig.until(lambda: dropping in rig.diagnostics, "a dropped image")
    faulty.order("slow")
    newest = images[-1]
    rig.until_shown(
        "/image",
        bag.on("/image")[-1],
        lambda: rig.statuses and decoding.stamp_ns(rig.statuses[-1].header) == newest,
        "the newest image",
    )
    report = rig.report()
    received, repeated, dropped = (
        int(report.get(f"count image.{key}", 0)) for key in ("received", "repeated", "dropped")
    )
    assert dropped == received - repeated - len(rig.statuses) - 1 > 0
    stamps = [decoding.stamp_ns(status.header) for status in rig.statuses]
    assert stamps == sorted(stamps)
    assert_no_wrong_pose(rig, truth)


@pytest.mark.parametrize("late", ["/camera_info", "/tf_static"])
def test_an_image_that_overtakes_the_calibration_is_not_lost(rig: Any, bag: Any, late: str) -> None:
    before = up_to_frame(without(bag), 1)
    rig.play([(topic, message) for topic, message in before if topic not in ("/image", late)])
    rig.until(rig.arrived, "all but the calibration")
    image = bag.on("/image")[0]
    rig.send("/image", image)
    rig.until_shown("/image", image, lambda: "count image.received" in rig.diagnostics, "the image")
    rig.send(late, bag.on(late)[0])
    rig.until(lambda: rig.statuses, "the verdict")
    assert rig.statuses[0].reason == "ok", rig.statuses[0].message


def test_a_first_frame_that_takes_long(faulty: FaultyNode, rig: Any, bag: Any) -> None:
    faulty.order("wait")
    rig.play(up_to_frame(without(bag), 0))
    rig.until_state("first frame", "/image", bag.on("/image")[0])
    assert rig.diagnostics["state reason"] == "first_frame"
    assert rig.state.startswith("INITIALIZING")
    faulty.order("")
    rig.until(lambda: rig.statuses, "its verdict")


def test_a_frame_in_work_does_not_undo_a_reset(faulty: FaultyNode, rig: Any, bag: Any) -> None:
    from std_srvs.srv import Trigger

    messages = without(bag)
    assert all(v.localized for v in rig.play(up_to_frame(messages, 2)))
    rig.call(Trigger, "reset", Trigger.Request())  # the client is known from now on
    rig.play(frames(messages, 2, 4))
    faulty.order("wait")
    for topic, message in frames(messages, 4, 5):
        rig.send(topic, message)
        rig.until(rig.arrived, "what comes before the next")
    rig.until_shown("/image", bag.on("/image")[4], faulty.works, "the image")
    assert rig.call(Trigger, "reset", Trigger.Request()).success
    faulty.order("")
    rig.until(lambda: len(rig.statuses) > 4, "the verdict on the frame in work")
    assert rig.statuses[4].reason == "superseded", rig.statuses[4].message
    assert not rig.statuses[4].localized


def test_a_clock_that_is_late_holds_nothing_up(rig: Any, bag: Any, truth: Any) -> None:
    from rosgraph_msgs.msg import Clock

    messages = without(bag)
    assert rig.parameters("use_sim_time") == [True]
    assert all(v.localized for v in rig.play(up_to_frame(messages, 4)))
    rig.until(lambda: rig.transforms, "a transform")
    clock = rig.node.create_publisher(Clock, "/clock", 10)
    rig.until(clock.get_subscription_count, "the node's clock")
    clock.publish(Clock(clock=messages[len(up_to_frame(messages, 4))][1].header.stamp))
    assert all(v.localized for v in rig.play(frames(messages, 4)))
    assert state(rig) == ("TRACKING", "ok")
    assert_no_wrong_pose(rig, truth)


def test_maps_and_weights_that_cannot_be_used_and_then_can(
    rig: Any, bag: Any, truth: Any, street: Path, tmp_path: Path
) -> None:
    good, broken = street / "map", tmp_path / "broken"
    shutil.copytree(good, broken)
    victim = sorted(broken.glob("tile*.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x7f")
    assert rig.change_state("deactivate")
    for name, value, complaint in (
        ("map", tmp_path / "nowhere", "nowhere"),
        ("map", broken, "altered"),
        ("features.weights", tmp_path / "none.safetensors", "none.safetensors"),
        ("features.weights", "/etc/passwd", "/etc/passwd: "),
    ):
        assert rig.change_state("cleanup")
        (before,) = rig.parameters(name)
        set_parameter(rig, name, str(value))
        try:
            assert not rig.change_state("configure")
            rig.until(lambda complaint=complaint: complaint in rig.state, f"'{complaint}'")
            assert state(rig) == ("ERROR", "configuration")
        finally:
            set_parameter(rig, name, before)
        assert rig.change_state("configure")
    assert rig.change_state("activate")
    rig.begin_again()
    rig.until(rig.connected, "the node's subscriptions")
    assert all(v.localized for v in rig.play(up_to_frame(without(bag), 3)))
    assert_no_wrong_pose(rig, truth)


def set_parameter(rig: Any, name: str, text: str) -> None:
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    (result,) = rig.call(SetParameters, "set_parameters", request).results
    assert result.successful, result.reason


def test_a_frame_that_never_ends_does_not_keep_it_alive(
    faulty: FaultyNode, rig: Any, bag: Any
) -> None:
    """The last one here: the node is gone afterwards."""
    from helpers.live import PATIENCE_S

    rig.play(up_to_frame(without(bag), 2))
    faulty.order("wait")
    messages = frames(without(bag), 2, 3)
    for topic, message in messages:
        rig.send(topic, message)
    rig.until_shown("/image", bag.on("/image")[2], faulty.works, "the image")
    faulty.process.send_signal(signal.SIGTERM)
    assert faulty.process.wait(PATIENCE_S) == 0
