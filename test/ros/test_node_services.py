"""Services of the live node: they answer when the matter is decided, and say what happened."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.map_building import write_moved
from helpers.messages import up_to_frame, without
from helpers.node_checks import relocalize
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.maps.map import Map
from pixloc_ros.ros import map_root as maps_below
from pixloc_ros.sensors import decoding


def hint_at(T_map_base: np.ndarray, stamp_ns: int = 0, frame: str = "map") -> Any:
    from pixloc_ros.ros import conversions

    covariance = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, 0.01])
    return conversions.pose_message(T_map_base, covariance, stamp_ns, frame)


@pytest.mark.ros
@pytest.mark.slow
def test_a_hint_relocalizes_and_the_answer_is_the_accepted_pose(
    rig: Any, bag: Any, truth: Any
) -> None:
    messages = without(bag, "/gnss/fix")
    rig.play(up_to_frame(messages, 1))
    assert rig.statuses[-1].reason == "no_prior"
    answer = relocalize(rig, hint_at(truth.T_map_base[0]))
    assert rig.report(), "the executor is blocked"
    assert not answer.done(), "an answer before any image"
    (verdict,) = rig.play(up_to_frame(messages, 2)[len(up_to_frame(messages, 1)) :])[-1:]
    assert (verdict.reason, verdict.prior_source) == ("ok", "initialpose")
    rig.until(answer.done, "the answer")
    result = answer.result()
    assert (result.success, result.code) == (True, "ok")
    assert result.frames >= 1
    assert 0.5 < result.score <= 1
    assert result.pose == rig.poses[-1]


@pytest.mark.ros
@pytest.mark.slow
def test_relocalizing_through_gnss_and_the_refusals(rig: Any, bag: Any, truth: Any) -> None:
    rig.play(up_to_frame(without(bag), 2))
    answer = relocalize(rig, hint_at(truth.T_map_base[1], frame="moon"))
    rig.until(answer.done, "a refusal")
    assert answer.result().code == "bad_request"
    assert "moon" in answer.result().message
    answer = relocalize(rig, timeout_s=-1.0)
    rig.until(answer.done, "a refusal")
    assert answer.result().code == "bad_request"
    first = relocalize(rig)
    second = relocalize(rig)
    rig.until(second.done, "the second one's answer")
    assert second.result().code == "busy"
    verdicts = rig.play(up_to_frame(without(bag), 3)[len(up_to_frame(without(bag), 2)) :])
    assert verdicts[0].prior_source == "gnss"
    rig.until(first.done, "the first one's answer")
    assert first.result().success


def refused_in_time(rig: Any, hint: Any, messages: Any) -> Any:
    """What is answered to a wrong hint when the time is over, which a frame was looked at in.

    The first images of the drive are shown, one in each attempt: a busy machine needs more time.
    """
    for attempt, timeout_s in enumerate((1.0, 4.0, 16.0, 64.0)):
        answer = relocalize(rig, hint, timeout_s=timeout_s)
        first, last = (len(up_to_frame(messages, attempt + k)) for k in (0, 1))
        rig.play(messages[first:last])
        rig.until(answer.done, "the answer")
        if answer.result().frames:
            break
    return answer.result()


@pytest.mark.ros
@pytest.mark.slow
def test_a_wrong_hint_ends_in_the_reason_of_the_last_frame(rig: Any, bag: Any, truth: Any) -> None:
    messages = without(bag, "/gnss/fix")
    rig.play(up_to_frame(messages, 0))
    away = truth.T_map_base[0].copy()
    away[:3, 3] += [500.0, 0.0, 0.0]
    result = refused_in_time(rig, hint_at(away), messages)
    assert (result.success, result.code, result.frames) == (False, "out_of_map", 1)
    assert "keyframe" in result.message
    assert math.isnan(result.score)
    assert not rig.poses
    answer = relocalize(rig, timeout_s=0.3)
    rig.until(answer.done, "the answer")
    assert (answer.result().success, answer.result().code) == (False, "no_image")


@pytest.mark.ros
@pytest.mark.slow
def test_a_hint_that_looks_the_other_way(rig: Any, bag: Any, truth: Any) -> None:
    messages = without(bag, "/gnss/fix")
    rig.play(up_to_frame(messages, 0))
    turned = truth.T_map_base[0] @ np.diag([-1.0, -1.0, 1.0, 1.0])
    result = refused_in_time(rig, hint_at(turned), messages)
    assert (result.success, result.code) == (False, "too_few_points")
    assert not rig.poses


@pytest.mark.ros
@pytest.mark.slow
def test_reset_begins_anew(rig: Any, bag: Any) -> None:
    from std_srvs.srv import Trigger

    messages = without(bag)
    rig.play(up_to_frame(messages, 2))
    assert rig.call(Trigger, "reset", Trigger.Request()).success
    verdicts = rig.play(up_to_frame(messages, 4)[len(up_to_frame(messages, 2)) :])
    assert [v.reason for v in verdicts] == ["no_prior", "ok"], "the old fix was used"
    assert verdicts[1].prior_source == "gnss"


@pytest.mark.ros
@pytest.mark.slow
def test_a_disabled_node_looks_at_no_image(rig: Any, bag: Any) -> None:
    from std_srvs.srv import SetBool

    rig.play(up_to_frame(without(bag), 1))
    waiting, second = relocalize(rig), relocalize(rig)
    rig.until(second.done, "the sign that the first one is under way")
    assert rig.call(SetBool, "set_enabled", SetBool.Request(data=False)).success
    rig.until(waiting.done, "the answer of what was under way")
    assert waiting.result().code == "interrupted"
    image = bag.on("/image")[1]
    rig.send("/image", image)
    rig.until_shown("/image", image, lambda: "count image.ignored" in rig.diagnostics, "the image")
    assert rig.state.startswith("DISABLED")
    assert len(rig.statuses) == 1
    refused = relocalize(rig)
    rig.until(refused.done, "a refusal")
    assert refused.result().code == "disabled"
    assert rig.call(SetBool, "set_enabled", SetBool.Request(data=True)).success
    assert rig.look(bag.on("/image")[1]).localized


@pytest.mark.ros
@pytest.mark.slow
def test_another_map_is_checked_before_it_is_used(rig: Any, bag: Any, map_root: Path) -> None:
    from pixloc_ros.srv import LoadMap

    def load(name: str) -> Any:
        return rig.call(LoadMap, "load_map", LoadMap.Request(name=name))

    sha256 = rig.report()["map sha256"]
    rig.play(up_to_frame(without(bag), 2))
    altered = map_root / "altered"
    shutil.copytree(map_root / "map", altered, dirs_exist_ok=True)
    victim = sorted(altered.glob("*.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x7f")
    for name in ("cut", "gone"):
        shutil.copytree(map_root / "map", map_root / name, dirs_exist_ok=True)
    cut, gone = (sorted((map_root / name).glob("tile*"))[-1] for name in ("cut", "gone"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    gone.unlink()
    for name, complaint in (
        ("cut", cut.name),
        ("gone", gone.name),
        ("nowhere", "no map 'nowhere'"),
        ("../map", "below"),
        ("/etc", "below"),
        ("altered", "altered"),
    ):
        answer = load(name)
        assert not answer.success, name
        assert complaint in answer.message
        assert answer.map_sha256 == sha256
    rest = without(bag)[len(up_to_frame(without(bag), 2)) :]
    assert rig.play(up_to_frame(rest, 1))[-1].prior_source == "odometry", "tracking was disturbed"
    shutil.copytree(map_root / "map", map_root / "twin", dirs_exist_ok=True)
    answer = load("twin")
    assert answer.success, answer.message
    assert "keyframes" in answer.message
    rig.until(lambda: rig.diagnostics.get("map", "").endswith("twin"), "the other map")
    rig.begin_again()
    rig.until(rig.connected, "the node's subscriptions")
    verdicts = rig.play(up_to_frame(without(bag), 2))
    assert [v.prior_source for v in verdicts] == ["gnss", "odometry"]


@pytest.mark.ros
@pytest.mark.slow
def test_a_map_that_is_written_over_while_it_runs(rig: Any, bag: Any, map_root: Path) -> None:
    from pixloc_ros.srv import LoadMap

    messages = without(bag)
    played = len(up_to_frame(messages, 2))
    assert rig.play(messages[:played])[-1].reason == "ok"
    name = Path(rig.report()["map"]).name  # an earlier test may have loaded another one
    files = {path: path.read_bytes() for path in (map_root / name).iterdir()}
    try:
        for path in files:
            path.write_bytes(b"")  # in place, as scp does
        verdicts = rig.play(up_to_frame(messages[played:], 2))
        assert [v.reason for v in verdicts] == ["ok", "ok"]
        answer = rig.call(LoadMap, "load_map", LoadMap.Request(name=name))
        assert not answer.success and "map.json" in answer.message
    finally:
        for path, content in files.items():
            path.write_bytes(content)
    answer = rig.call(LoadMap, "load_map", LoadMap.Request(name=name))
    assert answer.success, answer.message


@pytest.mark.ros
@pytest.mark.slow
def test_an_inactive_node_says_so(rig: Any, truth: Any) -> None:
    from std_srvs.srv import SetBool, Trigger

    assert rig.change_state("deactivate")
    for kind, name in ((Trigger, "reset"), (SetBool, "set_enabled")):
        answer = rig.call(kind, name, kind.Request())
        assert not answer.success
        assert "not active" in answer.message
    answer = relocalize(rig, hint_at(truth.T_map_base[0]))
    rig.until(answer.done, "a refusal")
    assert answer.result().code == "inactive"


def test_maps_are_found_below_the_root_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "maps", tmp_path / "secret"
    (root / "campus").mkdir(parents=True)
    (root / "campus" / "map.json").touch()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    assert maps_below.find(str(root), "campus") == (root / "campus").resolve()
    for name in ("", ".", "..", "../secret", str(outside), "link", "campus/../../secret"):
        with pytest.raises(MapError, match="below"):
            maps_below.find(str(root), name)
    with pytest.raises(MapError, match="maps there: campus"):
        maps_below.find(str(root), "harbour")
    with pytest.raises(MapError, match="map_root"):
        maps_below.find("", "campus")


@pytest.mark.ros
@pytest.mark.slow
def test_a_level_is_changed_at_the_door_and_localization_goes_on(
    rig: Any, bag: Any, truth: Any, map_root: Path
) -> None:
    from pixloc_ros.srv import LoadMap

    T_level_street = se3.make(Rotation.from_euler("z", 90, degrees=True).as_matrix(), [40, -7, 3])
    write_moved(Map.load(map_root / "map"), T_level_street, map_root / "level_1")
    messages = without(bag, "/gnss/fix")
    begin = hint_at(truth.T_map_base[0], decoding.stamp_ns(bag.on("/image")[0].header))
    rig.send("/initialpose", begin)
    verdicts = rig.play(up_to_frame(messages, 3))
    assert [v.reason for v in verdicts] == ["ok"] * 3
    try:
        ask = LoadMap.Request(name="level_1", use_pose=True)
        ask.pose = hint_at(se3.make(np.eye(3), [np.nan, 0, 0]))
        refused = rig.call(LoadMap, "load_map", ask)
        assert not refused.success and "pose" in refused.message
        ask.pose = hint_at(T_level_street @ truth.T_map_base[2])
        answer = rig.call(LoadMap, "load_map", ask)
        assert answer.success, answer.message
        rig.begin_again()
        rig.until(rig.connected, "the node's subscriptions")
        rest = messages[len(up_to_frame(messages, 3)) :]
        through = [("/camera_info", bag.on("/camera_info")[0]), *up_to_frame(rest, 3)]
        verdicts = rig.play(through)
        assert [v.reason for v in verdicts] == ["ok"] * len(verdicts) and len(verdicts) >= 3
        assert [v.prior_source for v in verdicts][:2] == ["initialpose", "odometry"]
        rig.until(lambda: len(rig.poses) == len(verdicts), "all poses")
        T_true = dict(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True))
        for pose in rig.poses:
            T = T_level_street @ T_true[decoding.stamp_ns(pose.header)]
            assert se3.distance_m(decoding.pose(pose.pose.pose), T) < 0.25
    finally:
        as_before = LoadMap.Request(name="map")
        assert rig.call(LoadMap, "load_map", as_before).success
