"""The real node over real DDS, on a small generated street."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers.drives import write_messages
from helpers.messages import changed, shifted, up_to_frame, without
from helpers.node_checks import errors, relocalize
from pixloc_ros.config import Config, flatten, from_flat, load, parameter_page, setting
from pixloc_ros.config.parameter_file import render
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.replay import messages as rosbag_messages
from pixloc_ros.replay.storage import open_sources
from pixloc_ros.ros.state import State
from pixloc_ros.sensors import decoding
from pixloc_ros.types import Reason

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ros
@pytest.mark.slow
def test_a_drive_is_localized_live(rig: Any, bag: Any, truth: Trajectory) -> None:
    verdicts = rig.play(bag.messages)
    assert [v.reason for v in verdicts] == ["ok"] * len(bag.on("/image")), verdicts[0].message
    rig.until(lambda: len(rig.poses) == len(verdicts), "a pose for every frame")
    assert verdicts[0].prior_source == "gnss"
    assert {v.prior_source for v in verdicts[1:]} == {"odometry"}
    error = errors(verdicts, rig.poses, truth)
    assert np.median(error[:, 0]) < 0.05
    assert error[:, 0].max() < 0.25
    assert error[:, 1].max() < 1.0
    last = verdicts[-1]
    assert last.header.frame_id == "map"
    assert last.camera_frame == "camera_optical"
    assert last.localized
    assert last.points > 50
    assert last.keyframes
    assert set(last.stages) >= {"queue", "decode", "odometry", "features", "alignment"}
    assert last.latency_ms >= sum(last.stages_ms)
    rig.until_state("TRACKING", "/image", bag.on("/image")[-1])
    report = rig.report()
    assert report["count frame.ok"] == str(len(verdicts))
    covariance = decoding.pose_covariance(rig.poses[-1].pose)
    assert np.linalg.eigvalsh(covariance)[0] > 0


@pytest.mark.ros
@pytest.mark.slow
def test_map_odom_joins_map_and_odometry(rig: Any, bag: Any) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 0))
    rig.report()
    assert not rig.transforms, "a transform before the first pose"
    rig.play(up_to_frame(messages, 4)[len(up_to_frame(messages, 0)) :])
    rig.until(lambda: len(rig.poses) == 4 and rig.transforms, "poses and transforms")
    stamp = decoding.stamp_ns(rig.poses[-1].header)
    T_accepted = decoding.pose(rig.poses[-1].pose.pose)
    (odometry,) = [m for m in bag.on("/odom") if decoding.stamp_ns(m.header) == stamp]
    newest = [m for topic, m in up_to_frame(messages, 4) if topic == "/odom"][-1]
    rig.send("/odom", shifted(newest, 0.04))
    config = Config()  # transforms are post-dated
    due_ns = decoding.stamp_ns(newest.header) + round(
        (0.04 + config.node.transform_tolerance_s) * 1e9
    )
    rig.until(lambda: decoding.stamp_ns(rig.transforms[-1].header) == due_ns, "a new transform")
    transform = rig.transforms[-1]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")
    T_map_base = decoding.pose(transform.transform) @ decoding.pose(odometry.pose.pose)
    np.testing.assert_allclose(T_map_base, T_accepted, atol=1e-6)
    # Odometry goes on, no more images: the transform is re-sent, then withheld.
    later_s = np.arange(0.5, 8.0, 0.5)
    for seconds in later_s:
        rig.send("/odom", shifted(newest, seconds))
        if seconds < Config().priors.max_coast_s - 1.0:
            due_ns = decoding.stamp_ns(newest.header) + round(seconds * 1e9)
            rig.until(
                lambda due_ns=due_ns: decoding.stamp_ns(rig.transforms[-1].header) >= due_ns,
                "the transform of newer odometry",
            )
    rig.until(rig.arrived, "the odometry")
    rig.report()
    last = max(decoding.stamp_ns(t.header) for t in rig.transforms)
    assert 2 < (last - stamp) * 1e-9 <= Config().priors.max_coast_s + 0.11


@pytest.mark.ros
@pytest.mark.slow
def test_odometry_and_path_are_in_the_map(rig: Any, bag: Any, truth: Trajectory) -> None:
    from nav_msgs.msg import Odometry, Path

    odometry, paths = rig.listen(Odometry, "odometry"), rig.listen(Path, "path")
    rig.play(up_to_frame(without(bag), 6))
    rig.until(lambda: len(rig.poses) == 6, "poses")
    accepted_ns = decoding.stamp_ns(rig.poses[-1].header)
    rig.until(
        lambda: odometry and decoding.stamp_ns(odometry[-1].header) > accepted_ns,
        "odometry after the last pose",
    )
    rig.until(lambda: paths and len(paths[-1].poses) > 1, "a path")
    newest = odometry[-1]
    assert (newest.header.frame_id, newest.child_frame_id) == ("map", "base_link")
    T_map_base = decoding.pose(newest.pose.pose)
    nearest = np.argmin(np.abs(truth.stamps_ns - decoding.stamp_ns(newest.header)))
    assert se3.distance_m(T_map_base, truth.T_map_base[nearest]) < 0.3
    grown = decoding.pose_covariance(newest.pose) - decoding.pose_covariance(rig.poses[-1].pose)
    assert np.trace(grown) > 0
    driven_m = se3.distance_m(truth.T_map_base[5], truth.T_map_base[0])
    elapsed_s = (truth.stamps_ns[5] - truth.stamps_ns[0]) * 1e-9
    assert newest.twist.twist.linear.x == pytest.approx(driven_m / elapsed_s, rel=0.3)
    assert 0 < newest.twist.covariance[0] < 1
    spots = [decoding.pose(p.pose) for p in paths[-1].poses]
    assert all(se3.distance_m(a, b) >= 0.5 for a, b in pairwise(spots))
    assert len(spots) <= 6
    assert se3.distance_m(spots[0], decoding.pose(rig.poses[0].pose.pose)) < 1e-9


@pytest.mark.ros
@pytest.mark.slow
def test_a_second_publisher_of_the_transform_is_reported(rig: Any, bag: Any) -> None:
    from tf2_msgs.msg import TFMessage

    from pixloc_ros.ros import conversions

    key = "other publisher of the transform"
    rig.play(up_to_frame(without(bag), 3))
    rig.until(lambda: len(rig.poses) == 3 and rig.transforms, "poses and transforms")
    publisher = rig.node.create_publisher(TFMessage, "/tf", 10)
    other = conversions.transform_message(np.eye(4), 10**9, "odom", "base_link")
    rig.until(lambda: rig.is_heard(publisher), "the node to hear it")
    publisher.publish(TFMessage(transforms=[other]))
    assert rig.report()[key] == "none"
    mine = conversions.transform_message(np.eye(4), 10**9, "map", "odom")
    publisher.publish(TFMessage(transforms=[mine]))
    rig.until(lambda: "/test_rig" in rig.diagnostics.get(key, ""), "the other publisher's name")


@pytest.mark.ros
@pytest.mark.slow
def test_over_dds_the_answers_and_counts_are_those_of_a_replay(
    rig: Any, street: Path, tmp_path: Path
) -> None:
    from helpers.live import Bag
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.replay.bag_reader import BagReader
    from pixloc_ros.replay.runner import drive_events
    from pixloc_ros.session import Session

    path = write_messages(tmp_path / "bag", with_odd_messages(street / "bag"))
    verdicts = rig.play(Bag(path).messages)
    settings = {"map": str(street / "map"), "retrieval.enabled": False, "threads": 1}
    session = Session(Localizer(from_flat(settings)))
    with BagReader(path) as reader:
        estimates = list(session.run(drive_events(reader)))
    assert [v.reason for v in verdicts] == [e.reason.value for e in estimates]
    assert [v.reason for v in verdicts].count("odd_stamp") == 1
    assert [v.prior_source for v in verdicts] == [
        e.prior.source if e.prior else "" for e in estimates
    ]
    rig.until(lambda: len(rig.poses) == sum(e.ok for e in estimates), "all poses")
    found = {e.stamp_ns: e.T_map_base for e in estimates if e.ok}
    for pose in rig.poses:
        T_replayed = found[decoding.stamp_ns(pose.header)]
        assert se3.distance_m(decoding.pose(pose.pose.pose), T_replayed) < 1e-3
    counts = {f"count {name}": line for name, line in session.counters.lines()}
    told = {name: line for name, line in rig.report().items() if name in counts}
    assert told == {name: line for name, line in counts.items() if name != "count tf.received"}


def with_odd_messages(bag: Path) -> list[tuple[int, str, Any]]:
    """The messages of a bag: one odometry and one image an hour ahead, and odometry that is NaN."""
    store = rosbag_messages.typestore()
    (source,) = open_sources(bag)
    timed = [
        (raw.log_ns, raw.topic, store.deserialize_cdr(raw.data, source.types[raw.topic]))
        for raw in source.messages(set(source.types), None, None)
    ]
    source.close()
    for topic, number in (("/odom", 20), ("/image", 5)):
        k = [i for i, (_, name, _) in enumerate(timed) if name == topic][number]
        log_ns, _, message = timed[k]
        header = rosbag_messages.header(log_ns + 3600 * 10**9, message.header.frame_id)
        timed[k] = log_ns, topic, replace(message, header=header)
    bad = [m for _, name, m in timed if name == "/odom"][30]
    bad.pose.pose.position.x = math.nan
    return timed


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "reason", "state"),
    [
        ("/camera_info", Reason.NO_CAMERA_INFO, State.WAITING_CAMERA_INFO),
        ("/tf_static", Reason.NO_EXTRINSICS, State.WAITING_EXTRINSICS),
        ("/gnss/fix", Reason.NO_PRIOR, State.WAITING_PRIOR),
    ],
)
def test_what_is_missing_is_said(
    rig: Any, bag: Any, missing: str, reason: Reason, state: State
) -> None:
    verdicts = rig.play(up_to_frame(without(bag, missing), 2))
    assert [v.reason for v in verdicts] == [reason.value] * 2
    assert not any(v.localized for v in verdicts)
    rig.until_state(state, "/image", bag.on("/image")[1])
    assert not rig.poses
    assert not rig.transforms


@pytest.mark.ros
@pytest.mark.slow
def test_bad_messages_are_counted_and_the_drive_goes_on(rig: Any, bag: Any) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 1))
    image, info, odometry, fix = (
        bag.on(topic)[1] for topic in ("/image", "/camera_info", "/odom", "/gnss/fix")
    )
    wrong: list[tuple[str, Any, dict[str, Any]]] = [
        ("/odom", odometry, {"pose.pose.position.x": math.nan}),
        ("/odom", odometry, {"pose.pose.orientation.w": 7.0}),
        ("/odom", odometry, {"header.frame_id": "world"}),
        ("/odom", odometry, {"child_frame_id": "wheel"}),
        ("/gnss/fix", fix, {"latitude": math.nan}),
        ("/gnss/fix", fix, {"status.status": -1}),
    ]
    for topic, message, changes in wrong:
        rig.send(topic, changed(message, **changes))
    bad_images: list[dict[str, Any]] = [
        {"step": 5},
        {"encoding": "32FC1"},
        {"data": b"short"},
        {"header.frame_id": "rear"},
    ]
    for tick, changes in enumerate(bad_images, start=1):
        verdict = rig.look(changed(image, **{"header.stamp.nanosec": tick, **changes}))
        assert (verdict.status, verdict.reason) == ("FAILED", "bad_image")
    report = rig.report()
    for name in (
        "odom.bad.not_finite",
        "odom.bad.bad_quaternion",
        "image.bad.image_step",
        "image.bad.image_encoding",
        "image.bad.image_size",
        "image.bad.frame",
        "prior.rejected.gnss_not_a_position",
        "prior.rejected.gnss_no_fix",
    ):
        assert report[f"count {name}"].startswith("1"), (name, report)
    assert report["count odom.bad.frame"].startswith("2")
    rig.send("/camera_info", changed(info, k=[0.0] * 9))
    rig.until(rig.arrived, "the calibration")
    assert rig.look(image).reason == "no_camera_info"
    rest = messages[len(up_to_frame(messages, 2)) + 1 :]
    verdicts = rig.play(rest)
    assert all(v.localized for v in verdicts), [v.message for v in verdicts]


@pytest.mark.ros
@pytest.mark.slow
def test_a_changed_camera_is_noticed(rig: Any, bag: Any) -> None:
    rig.play(up_to_frame(without(bag), 1))
    info = bag.on("/camera_info")[1]
    rig.send("/camera_info", changed(info, width=2 * info.width))
    rig.until(rig.arrived, "the calibration")
    verdict = rig.look(bag.on("/image")[1])
    assert verdict.reason == "bad_image"
    assert "calibrated for" in verdict.message
    assert rig.report()["count camera_info.changed"].startswith("1")


@pytest.mark.ros
@pytest.mark.slow
def test_a_bag_that_loops_starts_over(rig: Any, bag: Any, truth: Trajectory) -> None:
    first_half = up_to_frame(without(bag), 5)
    later = [
        (topic, shifted(message, 60) if hasattr(message, "header") else message)
        for topic, message in first_half
    ]
    assert all(v.localized for v in rig.play(later))
    rig.forget()
    verdicts = rig.play(first_half)
    assert [v.prior_source for v in verdicts[:2]] == ["gnss", "odometry"]
    assert all(v.localized for v in verdicts)
    rig.until(lambda: len(rig.poses) == 5, "poses")
    assert errors(verdicts, rig.poses, truth)[:, 0].max() < 0.25
    assert rig.report()["count time.went_back"] == "1"


@pytest.mark.ros
@pytest.mark.slow
def test_a_click_starts_it_where_there_is_no_gnss(rig: Any, bag: Any, truth: Trajectory) -> None:
    from pixloc_ros.ros import conversions

    messages = without(bag, "/gnss/fix")
    rig.play(up_to_frame(messages, 0))
    covariance = np.zeros((6, 6))
    covariance[0, 0] = covariance[1, 1] = 0.25
    covariance[5, 5] = 0.0685
    clicked = truth.T_map_base[0].copy()
    clicked[:3, 3] += [0.4, -0.2, -clicked[2, 3]]
    stamp = decoding.stamp_ns(bag.on("/image")[0].header)
    for frame in ("odom", "map"):
        rig.send("/initialpose", conversions.pose_message(clicked, covariance, stamp, frame))
        rig.until(rig.arrived, "a click")
    assert rig.report()["count initialpose.bad.frame"].startswith("1")
    verdicts = rig.play(up_to_frame(messages, 3)[len(up_to_frame(messages, 0)) :])
    assert verdicts[0].prior_source == "initialpose"
    assert all(v.localized for v in verdicts)


@pytest.mark.ros
@pytest.mark.slow
def test_newest_frame_wins_and_drops_are_counted(rig: Any, bag: Any) -> None:
    rig.play(up_to_frame(without(bag), 0))

    def counted(what: str) -> int:
        return int(rig.diagnostics.get(f"count image.{what}", 0))

    for later_s in range(0, 1000, 10):  # again and again, where the node is the faster one
        for image in bag.on("/image"):
            rig.send("/image", shifted(image, later_s))
        rig.report()
        if counted("dropped") and counted("received") > 3:
            break

    def all_accounted_for() -> bool:
        rig.report()
        return counted("received") == len(rig.statuses) + counted("dropped")

    rig.until(all_accounted_for, "a verdict or a drop for every image")
    assert counted("dropped") > 0
    stamps = [decoding.stamp_ns(status.header) for status in rig.statuses]
    assert stamps == sorted(stamps)


@pytest.mark.ros
@pytest.mark.slow
def test_parameters_are_those_of_the_configuration_and_fixed_while_configured(rig: Any) -> None:
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters

    listed = rig.call(ListParameters, "list_parameters", ListParameters.Request()).result.names
    names = {name for name, _ in flatten(Config())}
    assert names <= set(listed)
    request = DescribeParameters.Request(names=["alignment.robust_scale"])
    (descriptor,) = rig.call(DescribeParameters, "describe_parameters", request).descriptors
    assert descriptor.description == setting("alignment.robust_scale").description
    value = ParameterValue(type=2, integer_value=4)
    change = SetParameters.Request(parameters=[Parameter(name="view.keyframes", value=value)])
    (result,) = rig.call(SetParameters, "set_parameters", change).results
    assert not result.successful
    assert "deactivate" in result.reason


def assert_told(rig: Any, complaint: str) -> None:
    rig.until(lambda: complaint in rig.state, "the complaint in /diagnostics")
    assert rig.state.startswith("ERROR")
    assert rig.lifecycle_state() == "unconfigured"


@pytest.mark.ros
@pytest.mark.slow
def test_a_parameter_that_does_not_exist_is_told(tmp_path: Path, domain: int) -> None:
    from helpers.live import Rig, running_node

    complaint, log = "did you mean 'alignment.robust_scale'", tmp_path / "log.txt"
    with running_node(log, domain, **{"alignment.robust_scal": 0.2}), Rig(domain) as rig:
        assert_told(rig, complaint)
    assert complaint in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_a_map_that_does_not_exist_is_told_and_the_player_does_not_wait(
    street: Path, tmp_path: Path, domain: int
) -> None:
    from helpers.live import Rig, environment, running_node

    complaint, log = "/nowhere/to/be/found", tmp_path / "log.txt"
    command = [sys.executable, "-m", "pixloc_ros.ros.executable", "bag_player"]
    command += [street / "bag", "--timeout", "300", "--localizer", "/pixloc_localizer"]
    with running_node(log, domain, map=complaint), Rig(domain) as rig:
        assert_told(rig, complaint)
        done = subprocess.run(command, env=environment(domain), capture_output=True, text=True)
    assert done.returncode == 1
    assert "the localizer cannot work" in done.stderr and complaint in done.stderr
    assert complaint in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_without_autostart_a_manager_leads_it_through_its_life(
    street: Path, bag: Any, tmp_path: Path, domain: int
) -> None:
    """And what is not allowed now is refused, and the node lives.

    Until a signal ends it: a caller that waits for an answer gets one.
    """
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    from helpers.live import NODE, PATIENCE_S, Rig, running_node

    log = tmp_path / "log.txt"
    parameters = {"map": street / "map", "node.autostart": False, "node.diagnostics_rate_hz": 10.0}
    # However busy the machine is, it shall be the node that ends, and not its patience.
    patient = f"from pixloc_ros.ros import node; node.STOP_S = node.ANSWER_S = {PATIENCE_S}; {NODE}"
    running = running_node(log, domain, program=("-c", patient), **parameters)
    with running as process, Rig(domain) as rig:
        assert rig.lifecycle_state() == "unconfigured"
        rig.until(lambda: rig.state.startswith("WAITING_MAP"), "a node without a map")
        for number in (3, 4, 2, 6, 99):  # activate, deactivate, cleanup, another shutdown, none
            request = ChangeState.Request(transition=Transition(id=number))
            assert not rig.call(ChangeState, "change_state", request).success
        assert not rig.change_state("deactivate")
        assert rig.lifecycle_state() == "unconfigured"
        for _ in range(2):
            assert rig.change_state("configure")
            assert rig.change_state("activate")
            rig.until(rig.connected, "the node's subscriptions")
            assert all(v.localized for v in rig.play(up_to_frame(without(bag), 2)))
            assert rig.change_state("deactivate")
            assert rig.change_state("cleanup")
            rig.begin_again()
        assert rig.lifecycle_state() == "unconfigured"
        assert process.poll() is None
        assert rig.change_state("configure")
        assert rig.change_state("activate")
        waiting = relocalize(rig)
        process.send_signal(signal.SIGINT)
        rig.until(waiting.done, "the answer of a node that ends")
        assert waiting.result().code == "interrupted"
        assert "shutting down" in waiting.result().message
        assert process.wait(PATIENCE_S) == 0
    assert "transition 3 is not allowed in state 'unconfigured'" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_a_working_node_ends_on_a_signal_and_the_player_feeds_it(
    street: Path, tmp_path: Path, domain: int
) -> None:
    """On SIGTERM; whatever runs in other tests ends on SIGINT."""
    from helpers.live import PATIENCE_S, Rig, running_node, running_player

    log = tmp_path / "log.txt"
    parameters = {"map": street / "map", "use_sim_time": True, "threads": 1}
    slowly = tmp_path / "player.txt", domain, "--clock", "--rate", 0.5
    with (
        running_node(log, domain, **parameters) as process,
        Rig(domain) as rig,
        running_player(street / "bag", *slowly),
    ):
        rig.until(lambda: rig.poses and rig.transforms, "a pose")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_the_player_says_that_nobody_listens(street: Path, domain: int) -> None:
    play = [sys.executable, "-m", "pixloc_ros.ros.executable", "bag_player", str(street / "bag")]
    from helpers.live import environment

    done = subprocess.run(
        [*play, "--timeout", "0.3"], capture_output=True, text=True, env=environment(domain)
    )
    assert done.returncode == 1
    assert "nobody subscribed" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_parameter_file_is_in_step_with_the_configuration() -> None:
    path = ROOT / "config" / "localizer.yaml"
    assert path.read_text() == render(Config()), "run python -m pixloc_ros.config.parameter_file"
    assert load(path) == Config()
    page = ROOT / "docs" / "guide" / "parameters.md"
    assert page.read_text() == parameter_page.render(), (
        "run python -m pixloc_ros.config.parameter_page > docs/guide/parameters.md"
    )
    parameters = yaml.safe_load(path.read_text())["/**/pixloc_localizer"]["ros__parameters"]
    assert parameters["alignment"]["iterations"] == list(Config().alignment.iterations)
