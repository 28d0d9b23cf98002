"""A drive, event by event: what waits for what, and what odd messages do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.message_drive import (
    Message,
    TruthfulLocalizer,
    at_ns,
    calibration,
    drive,
    image,
    initial_pose,
    odometry,
    odometry_on_tf,
    static_transforms,
    truth,
)
from pixloc_ros.config import from_flat
from pixloc_ros.geometry import se3
from pixloc_ros.replay import messages
from pixloc_ros.sensors import conversion, decoding
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Event, ImageEvent, PoseEvent
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate, Reason

HOUR_S = 3600.0


def session(**settings: Any) -> Session:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return Session(TruthfulLocalizer(from_flat(named)))


def event(message: Message) -> Event:
    part, content = message
    if part == "tf":
        return conversion.transforms_event(lambda: content)
    return conversion.event_of(part, content, received_ns=1)


def run(session: Session, timed: list[Message]) -> list[Estimate]:
    return list(session.run(event(message) for message in timed))


def stamped(message: Message, stamp_ns: int) -> Message:
    part, content = message
    return part, replace(content, header=messages.header(stamp_ns, content.header.frame_id))


def positions(timed: list[Message], part: str) -> list[int]:
    return [i for i, (name, _) in enumerate(timed) if name == part]


def sources(estimates: list[Estimate]) -> list[str]:
    return [e.prior.source if e.prior else "" for e in estimates]


def test_a_drive_begins_at_a_fix_and_goes_on_by_odometry() -> None:
    estimates = run(session(), drive())
    assert [e.reason for e in estimates] == [Reason.OK] * 10
    assert sources(estimates) == ["gnss"] + ["odometry"] * 9
    assert [e.name for e in estimates] == [f"{i:06d}" for i in range(10)]


# --- stamps and time ---------------------------------------------------------------------------


@pytest.mark.parametrize("odd_s", [-HOUR_S, 5.0, HOUR_S])
def test_one_odd_stamp_of_odometry_voids_nothing(odd_s: float) -> None:
    timed = drive()
    odd = positions(timed, "odom")[20]
    timed[odd] = stamped(timed[odd], at_ns(0.4 + odd_s))
    live = session()
    estimates = run(live, timed)
    assert [e.reason for e in estimates] == [Reason.OK] * 10
    assert sources(estimates)[1:] == ["odometry"] * 9
    assert (live.counters["odom.odd_stamp"], live.counters["time.went_back"]) == (1, 0)


@pytest.mark.parametrize("odd_s", [-HOUR_S, 5.0, HOUR_S])
def test_one_odd_stamp_of_an_image_costs_that_image(odd_s: float) -> None:
    timed = drive()
    odd = positions(timed, "image")[5]
    timed[odd] = stamped(timed[odd], at_ns(0.5 + odd_s))
    live = session()
    estimates = run(live, timed)
    assert [e.ok for e in estimates] == [i != 5 for i in range(10)]
    assert estimates[5].reason is Reason.ODD_STAMP
    assert f"{abs(odd_s + 0.1):.1f} s" in estimates[5].message
    assert {sources(estimates)[i] for i in range(1, 10) if i != 5} == {"odometry"}
    assert (live.counters["image.odd_stamp"], live.counters["time.went_back"]) == (1, 0)


def test_a_drive_that_begins_anew_is_localized_from_its_first_image_on() -> None:
    timed = drive(frames=20)
    live = session()
    estimates = run(live, timed * 2)
    first, second = estimates[:20], estimates[20:]
    assert [e.reason for e in estimates] == [Reason.OK] * 40
    assert sources(first) == sources(second)
    for before, after in zip(first, second, strict=True):
        assert before.prior is not None and after.prior is not None
        np.testing.assert_array_equal(before.prior.T_map_base, after.prior.T_map_base)
    assert live.counters["time.went_back"] == 1


def test_a_clock_that_is_set_ahead_is_followed() -> None:
    before, after = drive(frames=5), drive(frames=10, start_s=HOUR_S)
    far = [m for m in after if m[0] != "tf_static"]
    live = session()
    estimates = run(live, [*before, *far])
    assert sum(not e.ok for e in estimates) <= 1, [e.message for e in estimates]
    assert live.counters["time.went_back"] == 0


def test_a_camera_of_one_image_in_two_seconds_is_followed_and_begins_anew() -> None:
    timed = [static_transforms()]
    for k in range(6):
        stamp_ns = at_ns(2.0 * k)
        timed += [calibration(stamp_ns), initial_pose(stamp_ns), image(stamp_ns)]
    live = session()
    assert [e.ok for e in run(live, timed)] == [True] * 6
    assert [e.ok for e in run(live, timed)][1:] == [True] * 5
    assert live.counters["time.went_back"] == 1


def test_images_that_waited_when_time_went_back_are_answered_and_believed_no_more() -> None:
    ahead = drive(frames=3, start_s=60.0)
    waiting = [image(at_ns(60.3))]  # its odometry never comes
    estimates = run(session(), [*ahead, *waiting, *drive(frames=3)])
    assert [e.reason for e in estimates[:3]] == [Reason.OK] * 3
    assert estimates[3].reason is Reason.SUPERSEDED
    assert [e.reason for e in estimates[4:]] == [Reason.OK] * 3


# --- what waits for what -----------------------------------------------------------------------


def test_a_frame_waits_for_odometry_at_its_stamp() -> None:
    live = session()
    for message in [static_transforms(), calibration(at_ns(0)), initial_pose(at_ns(0))]:
        live.push(event(message))
    for tick in range(4):
        live.push(event(odometry(at_ns(tick / 50))))
    assert live.push(event(image(at_ns(0.1)))) == []
    assert live.push(event(odometry(at_ns(0.08)))) == []
    (estimate,) = live.push(event(odometry(at_ns(0.1))))
    assert estimate.ok and estimate.prior is not None
    np.testing.assert_allclose(estimate.prior.T_map_base, truth(at_ns(0.1)), atol=1e-9)
    assert live.counters["odom.late"] == 0


def test_a_frame_waits_for_odometry_over_its_readout_and_moves_with_it() -> None:
    localizer = TruthfulLocalizer(from_flat({"camera.readout_s": 0.03}))
    live = Session(localizer)
    for message in [static_transforms(), calibration(at_ns(0)), initial_pose(at_ns(0))]:
        live.push(event(message))
    for tick in range(6):
        live.push(event(odometry(at_ns(tick / 50))))
    assert live.push(event(image(at_ns(0.1)))) == []
    assert live.push(event(odometry(at_ns(0.12)))) == []
    (estimate,) = live.push(event(odometry(at_ns(0.14))))
    assert estimate.ok
    frame = localizer.seen[0][0]
    T_first_last = se3.inverse(truth(at_ns(0.1))) @ truth(at_ns(0.13))
    of_camera = se3.inverse(frame.T_base_cam) @ T_first_last @ frame.T_base_cam
    assert frame.camera.shutter is not None
    twist = frame.camera.shutter.twist.numpy() * (frame.camera.height - 1)
    np.testing.assert_allclose(twist[:3], of_camera[:3, 3], atol=1e-4)
    assert np.linalg.norm(twist[:3]) > 0.1


def test_a_rolling_shutter_without_odometry_is_told_once_and_counted() -> None:
    timed = [m for m in drive() if m[0] != "odom"]
    live = session(camera__readout_s=0.03)
    run(live, timed)
    assert live.counters["image.shutter_uncorrected"] == 10
    assert "not corrected" in live.counters.last_line("image.shutter_uncorrected")
    assert not any("shutter" in name for name in _counted(session(), drive()))


def _counted(live: Session, timed: list[Message]) -> dict[str, int]:
    run(live, timed)
    return live.counters.counts()


def test_frames_do_not_wait_for_odometry_that_has_stopped() -> None:
    timed = drive(frames=40)
    cut = [m for m in timed if m[0] != "odom" or m[1].header.stamp.nanosec < 500_000_000]
    cut = [m for m in cut if m[0] != "odom" or m[1].header.stamp.sec == 1_700_000_000]
    live = session()
    answered = [(m, live.push(event(m))) for m in cut]
    at_the_end = [len(estimates) for (part, _), estimates in answered if part == "image"][-10:]
    assert at_the_end == [1] * 10, "each image is answered when it comes"
    assert live.counters["odom.late"] > 0


@pytest.mark.parametrize(("off_s", "words"), [(HOUR_S, "3600.0 s after"), (-20.0, "20.0 s before")])
def test_images_by_another_clock_than_odometry_are_told(off_s: float, words: str) -> None:
    live, off_ns = session(), round(off_s * 1e9)
    for part, message in drive():
        if part in ("image", "camera_info"):
            stamp_ns = decoding.stamp_ns(message.header) + off_ns
            live.push(event(stamped((part, message), stamp_ns)))
        else:
            live.push(event((part, message)))
    assert words in live.counters.last_line("image.without_odom")
    assert not any("without_odom" in name for name in _counted(session(), drive()))


def test_images_that_come_before_the_calibration_wait_for_it() -> None:
    timed = drive(frames=6)
    late = [m for m in timed if m[0] != "camera_info"]
    late.insert(positions(late, "image")[3] + 1, calibration(at_ns(0.3)))
    live = session()
    assert [e.reason for e in run(live, late)] == [Reason.OK] * 6
    never = [m for m in timed if m[0] != "camera_info"]
    estimates = run(session(), never)
    assert {e.reason for e in estimates} == {Reason.NO_CAMERA_INFO}
    assert "no usable message" in estimates[0].message


def test_images_that_come_before_their_mounting_wait_for_it() -> None:
    timed = drive(frames=6)[1:]
    timed.insert(positions(timed, "image")[2] + 1, static_transforms())
    estimates = run(session(), timed)
    assert [e.reason for e in estimates] == [Reason.OK] * 6
    estimates = run(session(), drive(frames=12)[1:])
    assert {e.reason for e in estimates} == {Reason.NO_EXTRINSICS}
    assert "nothing has come on /tf_static" in estimates[0].message
    assert "'base_link' to 'camera_optical'" in estimates[0].message


def test_a_calibration_that_is_refused_is_not_waited_for_and_is_named() -> None:
    timed = drive(frames=6)
    bad = positions(timed, "camera_info")[3]
    timed[bad] = ("camera_info", replace(timed[bad][1], k=np.zeros(9)))
    estimates = run(session(), timed)
    assert [e.ok for e in estimates] == [i != 3 for i in range(6)]
    assert estimates[3].reason is Reason.NO_CAMERA_INFO
    assert "refused" in estimates[3].message and "focal" in estimates[3].message


def test_the_camera_of_a_rig_whose_images_have_another_size_is_named() -> None:
    def of(name: str, message: Message) -> Event:
        return replace(event(message), camera_name=name)

    rig, stamp_ns = session(node__cameras="front,left"), at_ns(0.0)
    part, left = calibration(stamp_ns)
    rig.push(of("front", calibration(stamp_ns)))
    rig.push(of("left", (part, replace(left, width=2 * left.width))))
    rig.push(event(static_transforms()))
    for name in ("front", "left"):
        rig.push(of(name, image(stamp_ns)))
    rig.finish()
    line = dict(rig.counters.lines())["image.bad.image_size"]
    assert "camera left: image is" in line


# --- frames ------------------------------------------------------------------------------------


def test_odometry_is_taken_from_the_transform_where_that_is_configured() -> None:
    timed = drive(odometry_of=odometry_on_tf)
    live = session(node__odom_source="tf")
    assert sources(run(live, timed))[1:] == ["odometry"] * 9
    assert live.counters["odom_tf.received"] == 50
    assert sources(run(session(), timed))[1:] == ["motion"] * 9


@pytest.mark.parametrize("odd_s", [-HOUR_S, HOUR_S])
def test_one_odd_stamp_of_a_transform_voids_nothing(odd_s: float) -> None:
    timed = drive(odometry_of=odometry_on_tf)
    odd = positions(timed, "tf")[20]
    timed[odd] = odometry_on_tf(at_ns(0.4 + odd_s))
    estimates = run(session(node__odom_source="tf"), timed)
    assert sources(estimates)[1:] == ["odometry"] * 9


def test_poses_are_taken_in_every_frame_that_something_joins_to_the_map() -> None:
    T_earth_map = se3.make(np.eye(3), [1000.0, 0.0, 0.0])
    timed = drive(frames=10, fixes=False)
    earth = messages.static_transform(at_ns(0), "earth", "map", T_earth_map)
    clicked = initial_pose(at_ns(0), "earth", T_earth_map)
    timed[1:1] = [("tf_static", earth), initial_pose(at_ns(0), "moon"), clicked]
    T_odom_map = se3.inverse(truth(at_ns(0)))  # once a pose was accepted
    again = positions(timed, "image")[5]
    timed.insert(again, initial_pose(at_ns(0.5), "odom", T_odom_map))
    live = session()
    estimates = run(live, timed)
    assert [e.reason for e in estimates] == [Reason.OK] * 10
    expected = ["initialpose", *["odometry"] * 4, "initialpose", *["odometry"] * 4]
    assert sources(estimates) == expected
    assert live.counters["initialpose.bad.frame"] == 1


def test_what_others_say_of_the_transform_that_is_ours_to_tell_does_not_count() -> None:
    wrong = messages.static_transform(at_ns(0), "map", "odom", se3.make(np.eye(3), [50.0, 0, 0]))
    timed = drive(frames=4, fixes=False)
    timed[1:1] = [("tf", wrong), initial_pose(at_ns(0), "odom")]
    live = session()
    estimates = run(live, timed)
    assert live.counters["initialpose.bad.frame"] == 1
    assert "initialpose" not in sources(estimates)
    live = session(node__tf_mode="none")
    assert sources(run(live, timed))[0] == "initialpose"


def test_odometry_in_another_frame_is_refused_and_named() -> None:
    timed = drive(frames=3)
    other = [
        ("odom", messages.odometry(at_ns(0), "world", "base_link", np.eye(4))),
        ("odom", messages.odometry(at_ns(0), "odom", "wheel", np.eye(4))),
    ]
    live = session()
    run(live, [*other, *timed])
    assert live.counters["odom.bad.frame"] == 2
    assert "'wheel'" in dict(live.counters.lines())["odom.bad.frame"]


# --- images ------------------------------------------------------------------------------------


def test_an_image_of_another_frame_than_its_calibration_needs_the_frame_to_be_configured() -> None:
    timed = drive(frames=2)
    infos = positions(timed, "camera_info")
    for i in infos:
        header = replace(timed[i][1].header, frame_id="rear")
        timed[i] = ("camera_info", replace(timed[i][1], header=header))
    refused = run(session(), timed)
    assert {e.reason for e in refused} == {Reason.BAD_IMAGE}
    assert "node.camera_frame" in refused[0].message
    assert all(e.ok for e in run(session(node__camera_frame="camera_optical"), timed))


def test_repeated_images_are_answered_once_and_images_of_a_disabled_session_not_at_all() -> None:
    timed = drive(frames=4)
    live = session()
    estimates = run(live, [m for m in timed for _ in range(2 if m[0] == "image" else 1)])
    assert (len(estimates), live.counters["image.repeated"]) == (4, 4)
    live.intake.enabled = False
    assert run(live, [image(at_ns(0.5))]) == []
    assert live.counters["image.ignored"] == 1


def test_a_pose_that_is_set_while_a_frame_is_in_work_wins() -> None:
    live = session()

    class Interrupted(TruthfulLocalizer):
        def localize(self, *arguments: Any) -> Estimate:
            live.tracker.forget_pose()
            return super().localize(*arguments)

    live._localizer = Interrupted()
    (estimate,) = run(live, drive(frames=1))
    assert estimate.reason is Reason.SUPERSEDED
    assert estimate.T_map_base is None
    assert live.tracker.T_map_odom is None


# --- what others publish into a drive ------------------------------------------------------------


def other_calibration(stamp_ns: int, focal_share: float = 1.05) -> Message:
    part, content = calibration(stamp_ns)
    k = content.k.copy()
    k[[0, 4]] *= focal_share
    return part, replace(content, k=k)


def test_two_publishers_of_calibrations_are_a_fault_with_a_reason_and_no_pose() -> None:
    timed = drive(frames=60)
    mixed = []
    for part, content in timed:
        mixed.append((part, content))
        stamp_ns = message_stamp_ns(content) if part == "camera_info" else 0
        if stamp_ns > at_ns(1.0):
            mixed.append(other_calibration(stamp_ns))
    live = session()
    estimates = run(live, mixed)
    assert all(e.ok for e in estimates[:10])
    assert {e.reason for e in estimates[12:]} == {Reason.CALIBRATION_UNSETTLED}
    assert "two publishers" in estimates[-1].message
    assert "f 6.300" in estimates[-1].message and "f 6.000" in estimates[-1].message


def test_two_publishers_of_calibrations_that_take_long_turns_are_a_fault_too() -> None:
    mixed = []
    for part, content in drive(frames=80):
        if part == "camera_info":
            stamp_ns = message_stamp_ns(content)
            second = (stamp_ns - at_ns(0.0)) // 10**9
            content = (other_calibration if second % 3 == 2 else calibration)(stamp_ns)[1]
        mixed.append((part, content))
    estimates = run(session(), mixed)
    assert {e.reason for e in estimates[40:]} == {Reason.CALIBRATION_UNSETTLED}


def test_a_calibration_that_changes_counts_when_it_has_held() -> None:
    timed = [
        other_calibration(message_stamp_ns(m)) if p == "camera_info" and i > 70 else (p, m)
        for i, (p, m) in enumerate(drive(frames=40))
    ]
    live = session()
    estimates = run(live, timed)
    reasons = [e.reason for e in estimates]
    first = reasons.index(Reason.CALIBRATION_UNSETTLED)
    held = reasons[first:].count(Reason.CALIBRATION_UNSETTLED)
    assert 9 <= held <= 11  # a second
    assert set(reasons[:first]) | set(reasons[first + held :]) == {Reason.OK}
    frames = live._localizer.seen  # type: ignore[attr-defined]
    assert {f.camera.focal[0].item() for (f,) in frames[:first]} == {6.0}
    assert {f.camera.focal[0].item() for (f,) in frames[first:]} == {6.0 * 1.05}


def test_a_recording_that_begins_anew_begins_with_its_own_calibration() -> None:
    timed = drive(frames=30)
    other = [
        other_calibration(message_stamp_ns(m)) if p == "camera_info" else (p, m) for p, m in timed
    ]
    estimates = run(session(), [*timed, *other])
    assert sum(not e.ok for e in estimates) <= 2, [e.message for e in estimates if not e.ok]


def message_stamp_ns(content: Any) -> int:
    return int(content.header.stamp.sec) * 10**9 + int(content.header.stamp.nanosec)


@pytest.mark.parametrize("off_s", [-HOUR_S, 60.0, 1e8])
@pytest.mark.parametrize("part", ["initialpose", "gnss_pose"])
def test_a_pose_by_another_clock_is_refused_by_name_and_changes_nothing(
    part: str, off_s: float
) -> None:
    timed = drive(frames=20)
    wrong = (part, stamped(initial_pose(at_ns(1.0)), at_ns(1.0 + off_s))[1])
    undisturbed = run(session(), timed)
    live = session()
    timed.insert(positions(timed, "image")[9] + 1, wrong)
    estimates = run(live, timed)
    assert sources(estimates) == sources(undisturbed)
    assert live.counters[f"{part}.bad.odd_stamp"] == 1
    line = dict(live.counters.lines())[f"{part}.bad.odd_stamp"]
    assert "another clock" in line and f"{abs(off_s):.0f}" in line.replace("e+08", "00000000")


def test_a_pose_by_another_clock_counts_when_time_moves_there_but_no_refused_hint() -> None:
    timed, later_s = drive(frames=20, fixes=False), 1000.0
    after = drive(frames=10, fixes=False, start_s=later_s)
    click = initial_pose(at_ns(later_s))
    live = session()
    run(live, timed)
    with pytest.raises(BadMessage, match="another clock"):
        live.intake.poses.take_from_caller(event(click))
    assert "initialpose" not in sources(run(live, after))
    live = session()
    assert "initialpose" in sources(run(live, [*timed, click, *after]))


def test_an_initial_pose_without_stamp_is_of_now() -> None:
    timed = drive(frames=20, fixes=False)
    click = stamped(initial_pose(at_ns(0.98)), 0)
    timed.insert(positions(timed, "image")[9] + 1, click)
    estimates = run(session(), timed)
    assert "initialpose" in sources(estimates)[9:11], sources(estimates)
    assert all(e.ok for e in estimates[10:])


def test_a_click_by_the_time_of_day_is_of_now_while_a_bag_is_played() -> None:
    """Foxglove stamps so, whatever clock the others have."""
    timed = [event(message) for message in drive(frames=20, fixes=False)]
    click = event(stamped(initial_pose(at_ns(0.98)), at_ns(1e8)))
    assert isinstance(click, PoseEvent)
    images = [i for i, each in enumerate(timed) if isinstance(each, ImageEvent)]
    timed.insert(images[9] + 1, replace(click, sent_just_now=True))
    estimates = list(session().run(timed))
    assert "initialpose" in sources(estimates)[9:11], sources(estimates)
    assert all(e.ok for e in estimates[10:])


def test_a_mounting_that_jumps_is_told() -> None:
    timed = drive(frames=10)
    part, content = static_transforms()
    moved = replace(content.transforms[0])
    shift = replace(moved.transform.translation, x=moved.transform.translation.x + 1.0)
    moved = replace(moved, transform=replace(moved.transform, translation=shift))
    timed[30:30] = [static_transforms(), (part, replace(content, transforms=[moved]))]
    live = session()
    run(live, timed)
    line = dict(live.counters.lines())["tf_static.changed"]
    assert line.startswith("1: ") and "camera_optical" in line and "1.00 m" in line
