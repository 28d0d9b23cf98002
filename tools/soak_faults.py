"""Drive over DDS with random faults, waiting for each frame and judging it.

A fault is a function of the messages of some frames: it returns what is published instead. Actions
on the node itself (services, transitions, parameters, files) are calls between the messages.
`tools/soak.py --faults SEED` runs it; docs/guide/reliability.md has the table.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.msg import AlignmentStatus
from pixloc_ros.replay.storage import open_sources
from pixloc_ros.ros import conversions
from pixloc_ros.ros.message_basics import message_class, time_message
from pixloc_ros.sensors import decoding
from pixloc_ros.srv import LoadMap, Relocalize

LOCALIZER = "/pixloc_localizer"
IMAGE, INFO, ODOM, FIX, STATIC = "/image", "/camera_info", "/odom", "/gnss/fix", "/tf_static"
CLICK, TF = "/initialpose", "/tf"
FIRST_FAULT = 4  # frames of a round before any fault
RIGHT_M, RIGHT_DEG = 0.5, 2.0  # poses with larger errors are wrong
ANSWER_S, RESEND_S = 60.0, 5.0  # to wait for an answer; an image is then lost
PAUSE_S = 60.0  # of bag time between rounds, where time does not go back


@dataclass(frozen=True, slots=True)
class Step:
    """One message to publish, or a call; raw bytes need not be a message."""

    topic: str
    message: Any = None
    act: Callable[[], None] | None = None
    answered: bool = True  # whether the node owes an answer, for an image
    T_map_base: np.ndarray | None = None  # (4, 4) true pose, of an image

    def at(self, **changes: Any) -> Step:
        """Return a copy with fields of the message set by dotted name (`__` for dots)."""
        message = copy.deepcopy(self.message)
        for name, value in changes.items():
            *path, leaf = name.split("__")
            target = message
            for part in path:
                target = getattr(target, part)
            setattr(target, leaf, value)
        return replace(self, message=message)

    def later(self, seconds: float) -> Step:
        """Return a copy with another stamp, if it has one."""
        if self.act or isinstance(self.message, bytes) or not hasattr(self.message, "header"):
            return self
        stamp_ns = decoding.stamp_ns(self.message.header) + round(seconds * 1e9)
        return self.at(header__stamp=time_message(max(stamp_ns, 0)))


Steps = list[Step]
Fault = Callable[["FaultyDrive", Steps], Steps]


@dataclass(slots=True)
class FaultCounts:
    """Counts over the frames of one kind of fault."""

    times: int = 0
    frames: int = 0
    accepted: int = 0
    wrong: int = 0
    unanswered: int = 0
    unrecovered: int = 0  # rounds that ended without another accepted frame
    reasons: dict[str, int] = field(default_factory=dict)


class FaultyDrive(Node):
    """Plays a bag round after round with a fault in each, and judges every answer.

    `rounds`, `bag_time_s` and `take` are like those of `soak.Listener`.
    """

    def __init__(self, bag: Path, maps: Path, seed: int) -> None:
        super().__init__("soak")
        self.rng = np.random.default_rng(seed)
        self.maps = maps
        self.rounds = -1
        self.bag_time_s = 0.0
        self.counts: dict[str, FaultCounts] = {}
        self.lines: list[str] = []  # violations
        self._steps = _steps(bag)
        self._publishers_of = {
            topic: self.create_publisher(kind, topic, _quality(topic))
            for topic, kind in _kinds(bag)
        }
        self._clients_of: dict[str, Any] = {}
        self._truth: dict[int, np.ndarray] = {}
        self._taken: list[AlignmentStatus] = []
        self._newest: AlignmentStatus | None = None
        self._answers = 0
        self._current = FaultCounts()
        self._shift_s = 0.0
        self._queue = FAULTS.copy()
        self.T_moved = np.eye(4)  # published mounting in the true one: (4, 4)
        self.create_subscription(AlignmentStatus, f"{LOCALIZER}/status", self._on_status, 50)
        self.create_subscription(PoseWithCovarianceStamped, f"{LOCALIZER}/pose", self._on_pose, 50)

    @property
    def every_fault_happened(self) -> bool:
        """Whether each fault was injected once."""
        return len(self.counts) == len(FAULTS)

    def take(self) -> list[AlignmentStatus]:
        """Return the statuses since the last call."""
        taken, self._taken = self._taken, []
        return taken

    def wait_for_node(self) -> None:
        """Wait until all topics have subscribers."""
        waiting = [p for t, p in self._publishers_of.items() if t != TF]
        self.spin_until(lambda: all(p.get_subscription_count() for p in waiting), 60.0)
        self.spin_until(lambda: False, 0.7)  # and until the node has discovered us

    def play_round(self) -> None:
        """Drive through the bag once, with one fault."""
        self.rounds += 1
        if not self._queue:
            self._queue = FAULTS.copy()
        fault = self._queue.pop(int(self.rng.integers(len(self._queue))))
        name = fault.__name__.removeprefix("fault_")
        self._current = self.counts.setdefault(name, FaultCounts())
        self._current.times += 1
        if self.rng.random() < 0.5:  # otherwise time goes back
            self._shift_s += PAUSE_S + self._duration_s
        steps = [step.later(self._shift_s) for step in self._steps]
        images = [i for i, step in enumerate(steps) if step.topic == IMAGE]
        first = int(self.rng.integers(FIRST_FAULT, len(images) // 2))
        last = min(first + int(self.rng.integers(2, 7)), len(images) - 1)
        begin, end = images[first - 1] + 1, images[last - 1] + 1
        self._play(steps[:begin])
        self._play(fault(self, steps[begin:end]))
        accepted = self._play(steps[end:])
        self.T_moved = np.eye(4)
        self._current.unrecovered += accepted == 0 and fault not in LASTING
        self.bag_time_s += self._duration_s

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the node and return its response."""
        if name not in self._clients_of:
            self._clients_of[name] = self.create_client(kind, f"{LOCALIZER}/{name}")
        client = self._clients_of[name]
        if not client.wait_for_service(ANSWER_S):
            self.lines.append(f"no service {name}")
            return None
        future = client.call_async(request)
        if not self.spin_until(future.done, ANSWER_S):
            self.lines.append(f"no answer of {name}")
            return None
        return future.result()

    def change_state(self, *labels: str) -> None:
        """Take the node through transitions; after the last one it must listen again."""
        for label in labels:
            request = ChangeState.Request()
            request.transition.label = label
            self.call(ChangeState, "change_state", request)
        self.wait_for_node()

    def put(self, **values: Any) -> bool:
        """Set parameters of the node by name, `__` for the dot; return whether it took them."""
        named = {name.replace("__", "."): value for name, value in values.items()}
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in named.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        answer = self.call(SetParametersAtomically, "set_parameters_atomically", request)
        return bool(answer and answer.result.successful)

    def static(self) -> Step:
        """Return the step with the transforms of the bag's vehicle."""
        return next(step for step in self._steps if step.topic == STATIC)

    def publish_again(self, topic: str) -> None:
        """Publish the bag's first message of a topic, for a node that has forgotten it."""
        step = next(step for step in self._steps if step.topic == topic)
        self._publishers_of[topic].publish(step.message)

    def expect(self, holds: bool, line: str) -> None:
        """Record a violation unless a condition holds."""
        if not holds:
            self.lines.append(f"round {self.rounds}: {line}")

    def spin_until(self, done: Callable[[], Any], patience_s: float) -> bool:
        """Receive messages until `done`; return whether that was in time."""
        end_s = time.monotonic() + patience_s
        while not done():
            if time.monotonic() > end_s:
                return False
            rclpy.spin_once(self, timeout_sec=0.02)
        return True

    @property
    def _duration_s(self) -> float:
        stamps = [decoding.stamp_ns(s.message.header) for s in self._steps if s.topic == IMAGE]
        return (stamps[-1] - stamps[0]) * 1e-9

    def _play(self, steps: Steps) -> int:
        """Publish in order, waiting for each image's answer; return the number accepted."""
        before = self._current.accepted
        for step in steps:
            if step.act is not None:
                step.act()
            elif step.topic == IMAGE:
                self._show(step)
            else:
                self._publishers_of[step.topic].publish(step.message)
                rclpy.spin_once(self, timeout_sec=0.0)
        return self._current.accepted - before

    def _show(self, step: Step) -> None:
        """Publish an image, and wait for the answer if the node owes one.

        Images are best effort, like those of drivers: a lost one is sent once more.
        """
        if step.T_map_base is not None and not isinstance(step.message, bytes):
            stamp_ns = decoding.stamp_ns(step.message.header)
            self._truth[stamp_ns] = step.T_map_base @ self.T_moved
        answers = self._answers
        self._publishers_of[IMAGE].publish(step.message)
        if not step.answered:
            self.spin_until(lambda: False, 0.2)
            return
        self._current.frames += 1
        if self.spin_until(lambda: self._answers > answers, RESEND_S):
            return
        self._publishers_of[IMAGE].publish(step.message)
        if not self.spin_until(lambda: self._answers > answers, ANSWER_S):
            self._current.unanswered += 1

    def _on_status(self, status: AlignmentStatus) -> None:
        self._answers += 1
        self._taken.append(status)
        reasons = self._current.reasons
        reasons[status.reason] = reasons.get(status.reason, 0) + 1
        self._current.accepted += bool(status.localized)
        self.expect(status.reason != "internal_error", f"internal error: {status.message}")

    def _on_pose(self, pose: PoseWithCovarianceStamped) -> None:
        T_true = self._truth.get(decoding.stamp_ns(pose.header))
        T_map_base = decoding.pose(pose.pose.pose)
        if T_true is None:
            self.expect(False, f"a pose of an image that was never sent: {pose.header.stamp}")
            return
        off_m, off_deg = se3.distance_m(T_map_base, T_true), se3.angle_deg(T_map_base, T_true)
        if off_m > RIGHT_M or off_deg > RIGHT_DEG:
            self._current.wrong += 1
            self.expect(False, f"a pose {off_m:.2f} m and {off_deg:.2f} deg off")


def _quality(topic: str) -> QoSProfile:
    latched = DurabilityPolicy.TRANSIENT_LOCAL
    return QoSProfile(depth=10, durability=latched) if topic == STATIC else QoSProfile(depth=50)


def _kinds(bag: Path) -> Iterator[tuple[str, Any]]:
    """Topics of the bag and those of operators, with their types."""
    (source,) = open_sources(bag)
    for topic, kind in source.types.items():
        yield topic, message_class(kind)
    source.close()
    yield from ((CLICK, PoseWithCovarianceStamped), (TF, TFMessage))


def _steps(bag: Path) -> Steps:
    """Read the messages of a bag, images with the true pose of the vehicle."""
    truth = read_tum(bag.with_suffix(".truth.txt"))
    poses = dict(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True))
    (source,) = open_sources(bag)
    kinds = {topic: message_class(kind) for topic, kind in source.types.items()}
    steps = []
    for raw in source.messages(set(kinds), None, None):
        message = deserialize_message(bytes(raw.data), kinds[raw.topic])
        T_map_base = poses.get(decoding.stamp_ns(message.header)) if raw.topic == IMAGE else None
        steps.append(Step(raw.topic, message, T_map_base=T_map_base))
    source.close()
    return steps


# --- what a fault does ---------------------------------------------------------------------------


def each(steps: Steps, topic: str, change: Callable[[Step], Step | Steps]) -> Steps:
    """Return the steps with those of a topic changed, removed (no step) or multiplied."""
    result: Steps = []
    for step in steps:
        new = change(step) if step.topic == topic and step.act is None else step
        result += new if isinstance(new, list) else [new]
    return result


def once(steps: Steps, topic: str, change: Callable[[Step], Step | Steps]) -> Steps:
    """Return the steps with the first of a topic changed, if there is one."""
    index = next((i for i, step in enumerate(steps) if step.topic == topic), None)
    if index is None:
        return steps
    return [*steps[:index], *each([steps[index]], topic, change), *steps[index + 1 :]]


def do(*acts: Callable[[], Any]) -> Steps:
    """Return steps that act on the node."""
    return [Step("", act=act) for act in acts]


def between(steps: Steps, *acts: Callable[[], Any]) -> Steps:
    """Return the steps with an action in the middle."""
    middle = len(steps) // 2
    return [*steps[:middle], *do(*acts), *steps[middle:]]


def silent(steps: Steps) -> Steps:
    """Return the steps with no answers expected to their images."""
    return [replace(step, answered=False) for step in steps]


def shaken(step: Step, T_shift: np.ndarray) -> Step:
    """Move the odometry by a motion (4, 4) in its own frame."""
    T = T_shift @ decoding.pose(step.message.pose.pose)
    pose = conversions.pose_message(T, np.zeros((6, 6)), 0, "").pose.pose
    return step.at(pose__pose=pose)


def click(drive: FaultyDrive, steps: Steps, **changes: Any) -> Step:
    """Return a click at the true pose of the first image, with fields set."""
    image = next(step for step in steps if step.topic == IMAGE)
    assert image.T_map_base is not None
    covariance = np.diag([0.25, 0.25, 0.25, 0.01, 0.01, 0.01])
    stamp_ns = decoding.stamp_ns(image.message.header)
    message = conversions.pose_message(image.T_map_base, covariance, stamp_ns, "map")
    return Step(CLICK, message).at(**changes)


# --- sensors -------------------------------------------------------------------------------------


def fault_images_black(drive: FaultyDrive, steps: Steps) -> Steps:
    def black(step: Step) -> Step:
        return step.at(data=drive.rng.integers(0, 3, len(step.message.data), np.uint8).tobytes())

    return each(steps, IMAGE, black)


def fault_images_noise(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, IMAGE, lambda s: s.at(data=drive.rng.bytes(len(s.message.data))))


def fault_images_stop(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, IMAGE, lambda step: [])


def fault_images_frozen(drive: FaultyDrive, steps: Steps) -> Steps:
    data = next(step.message.data for step in steps if step.topic == IMAGE)
    return each(steps, IMAGE, lambda step: step.at(data=data))


def fault_images_twice(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, IMAGE, lambda step: [step, replace(step, answered=False)])


def fault_images_malformed(drive: FaultyDrive, steps: Steps) -> Steps:
    changes: list[dict[str, Any]] = [
        {"data": b"short"},
        {"step": 5},
        {"encoding": "32FC1"},
        {"encoding": "x" * 5000},
        {"width": 2**31, "height": 2**31},
        {"header__frame_id": "rear"},
        {"header__stamp": time_message(0)},
    ]
    return each(steps, IMAGE, lambda s: s.at(**changes[drive.rng.integers(len(changes))]))


def fault_calibration_impossible(drive: FaultyDrive, steps: Steps) -> Steps:
    changes: list[dict[str, Any]] = [
        {"k": [0.0] * 9},
        {"k": [math.nan] * 9},
        {"d": [1e308] * 5},
        {"distortion_model": "fisheye?", "d": [0.1] * 5},
        {"width": 0},
        {"header__frame_id": "rear"},
    ]
    return each(steps, INFO, lambda s: s.at(**changes[drive.rng.integers(len(changes))]))


def fault_calibrations_alternate(drive: FaultyDrive, steps: Steps) -> Steps:
    def both(step: Step) -> Steps:
        k = np.array(step.message.k)
        k[[0, 4]] *= 1.05
        return [step, step.at(k=k.tolist())]

    return each(steps, INFO, both)


def fault_calibration_stops(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, INFO, lambda step: [])


def fault_odometry_stops(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, ODOM, lambda step: [])


def fault_odometry_impossible(drive: FaultyDrive, steps: Steps) -> Steps:
    changes: list[dict[str, Any]] = [
        {"pose__pose__position__x": math.nan},
        {"pose__pose__position__x": 1e160},
        {"pose__pose__orientation__w": 7.0},
        {"header__frame_id": "world"},
        {"header__frame_id": "x" * 5000},
        {"child_frame_id": "wheel"},
    ]
    return each(steps, ODOM, lambda s: s.at(**changes[drive.rng.integers(len(changes))]))


def fault_odometry_jumps_once(drive: FaultyDrive, steps: Steps) -> Steps:
    return once(steps, ODOM, lambda s: shaken(s, se3.make(np.eye(3), [50.0, 0.0, 0.0])))


def fault_odometry_jumps_for_good(drive: FaultyDrive, steps: Steps) -> Steps:
    yaw = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    return each(steps, ODOM, lambda s: shaken(s, se3.make(yaw, [30.0, -20.0, 0.0])))


def fault_odometry_slips(drive: FaultyDrive, steps: Steps) -> Steps:
    counts = iter(range(10_000))
    slip_m = 0.02 * drive.rng.random()
    return each(
        steps, ODOM, lambda s: shaken(s, se3.make(np.eye(3), [slip_m * next(counts), 0.0, 0.0]))
    )


def fault_odometry_twice_and_out_of_order(drive: FaultyDrive, steps: Steps) -> Steps:
    odometry = [i for i, step in enumerate(steps) if step.topic == ODOM]
    steps = steps.copy()
    for a, b in zip(odometry[::2], odometry[1::2], strict=False):
        steps[a], steps[b] = steps[b], steps[a]
    return each(steps, ODOM, lambda step: [step, step])


def fault_fixes_far_off(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, FIX, lambda s: s.at(latitude=s.message.latitude + 50.0 / 111_000.0))


def fault_fixes_impossible(drive: FaultyDrive, steps: Steps) -> Steps:
    changes: list[dict[str, Any]] = [
        {"latitude": math.nan},
        {"altitude": 1e308},
        {"position_covariance": [1e308] * 9},
        {"position_covariance": [-1.0] + [0.0] * 8},
        {"position_covariance": [1.0, 5.0, 0.0, -5.0, 1.0, 0.0, 0.0, 0.0, 1.0]},
        {"status__status": -1},
    ]
    return each(steps, FIX, lambda s: s.at(**changes[drive.rng.integers(len(changes))]))


def fault_half_messages(drive: FaultyDrive, steps: Steps) -> Steps:
    """Truncated and random bytes on every topic."""
    moving = TransformStamped(child_frame_id="odom")
    samples = [next(s for s in steps if s.topic == t) for t in (IMAGE, INFO, ODOM)]
    samples += [click(drive, steps), Step(TF, TFMessage(transforms=[moving]))]
    raw: Steps = []
    for step in samples:
        content = serialize_message(step.message)
        end = int(drive.rng.integers(0, len(content)))
        raw.append(Step(step.topic, content[:end], answered=False))
        noise = content[:4] + drive.rng.bytes(min(len(content), 300))
        raw.append(Step(step.topic, noise, answered=False))
    return [*raw, *steps]


# --- clocks --------------------------------------------------------------------------------------


def fault_one_stamp_ahead(drive: FaultyDrive, steps: Steps) -> Steps:
    topic = str(drive.rng.choice([IMAGE, ODOM, FIX, INFO]))
    return once(steps, topic, lambda step: step.later(3600.0))


def fault_one_stamp_behind(drive: FaultyDrive, steps: Steps) -> Steps:
    topic = str(drive.rng.choice([IMAGE, ODOM, FIX, INFO]))
    return once(steps, topic, lambda step: step.later(-3600.0))


def fault_clock_set(drive: FaultyDrive, steps: Steps) -> Steps:
    """Stamp all messages of these frames with another clock."""
    off_s = float(drive.rng.choice([-3600.0, 3600.0]))
    return [step.later(off_s) for step in steps]


def fault_camera_of_another_clock(drive: FaultyDrive, steps: Steps) -> Steps:
    return each(steps, IMAGE, lambda step: step.later(-30.0))


def fault_click_of_another_clock(drive: FaultyDrive, steps: Steps) -> Steps:
    return [click(drive, steps).later(float(drive.rng.choice([-1e6, 1e6]))), *steps]


# --- transforms ----------------------------------------------------------------------------------


def fault_unfilled_transform(drive: FaultyDrive, steps: Steps) -> Steps:
    unfilled = TransformStamped(child_frame_id="lidar")
    unfilled.header.frame_id, unfilled.transform.rotation.w = "base_link", 0.0
    static = drive.static()
    return [static.at(transforms=[unfilled, *static.message.transforms]), *steps, static]


def fault_mounting_jumps(drive: FaultyDrive, steps: Steps) -> Steps:
    """The node accepts it: the camera stays where it was, so the vehicle moves."""
    static = drive.static()
    (before,) = static.message.transforms
    moved = copy.deepcopy(before)
    moved.transform.translation.x += 0.3
    T_before, T_moved = decoding.pose(before.transform), decoding.pose(moved.transform)

    def move() -> None:
        drive.T_moved = T_before @ se3.inverse(T_moved)

    def back() -> None:
        drive.T_moved = np.eye(4)

    return [static.at(transforms=[moved]), *do(move), *steps, static, *do(back)]


def fault_transforms_of_others(drive: FaultyDrive, steps: Steps) -> Steps:
    """Another node publishes the odometry's frame, in cycles and far away."""
    circle = [("map", "odom"), ("odom", "base_link"), ("base_link", "map"), ("a", "a"), ("", "b")]
    transforms = []
    for parent, child in circle:
        each_ = TransformStamped(child_frame_id=child)
        each_.header.frame_id = parent
        each_.transform.translation.x = float(drive.rng.choice([100.0, 1e300, math.nan]))
        transforms.append(each_)
    step = Step(TF, TFMessage(transforms=transforms))
    return each(steps, ODOM, lambda s: [s, step])


# --- operators: clicks, services, parameters, transitions ----------------------------------------


def fault_click_far_off(drive: FaultyDrive, steps: Steps) -> Steps:
    right = click(drive, steps)
    x = right.message.pose.pose.position.x
    off_m = float(drive.rng.choice([3.0, 30.0, 1e6]))
    return [right.at(pose__pose__position__x=x + off_m), *steps]


def fault_click_impossible(drive: FaultyDrive, steps: Steps) -> Steps:
    changes: list[dict[str, Any]] = [
        {"pose__pose__position__x": 1e160},
        {"pose__pose__orientation__w": math.nan},
        {"pose__covariance": np.eye(6, k=1).ravel().tolist()},
        {"pose__covariance": (-np.eye(6)).ravel().tolist()},
        {"header__frame_id": "moon"},
        {"header__frame_id": "x" * 5000},
    ]
    return [click(drive, steps, **change) for change in changes] + steps


def fault_relocalize_with_bad_hints(drive: FaultyDrive, steps: Steps) -> Steps:
    def ask(timeout_s: float, **changes: Any) -> None:
        hint = click(drive, steps, **changes).message
        request = Relocalize.Request(use_hint=True, hint=hint, timeout_s=timeout_s)
        answer = drive.call(Relocalize, "relocalize", request)
        drive.expect(answer is not None and answer.code == "bad_request", f"answered {answer}")

    return between(
        steps,
        lambda: ask(1.0, pose__pose__position__x=1e160),
        lambda: ask(1.0, header__frame_id="moon"),
        lambda: ask(math.nan),
    )


def fault_relocalize_in_vain(drive: FaultyDrive, steps: Steps) -> Steps:
    """Relocalize without images; the vehicle must then be found again."""

    def ask() -> None:
        answer = drive.call(Relocalize, "relocalize", Relocalize.Request(timeout_s=0.2))
        drive.expect(answer is not None and not answer.success, f"answered {answer}")

    return between(steps, ask)


def fault_reset(drive: FaultyDrive, steps: Steps) -> Steps:
    return between(steps, lambda: drive.call(Trigger, "reset", Trigger.Request()))


def fault_disabled(drive: FaultyDrive, steps: Steps) -> Steps:
    def enable(data: bool) -> None:
        drive.call(SetBool, "set_enabled", SetBool.Request(data=data))

    return [*do(lambda: enable(False)), *silent(steps), *do(lambda: enable(True))]


def fault_transitions_not_allowed(drive: FaultyDrive, steps: Steps) -> Steps:
    def ask(number: int) -> None:
        request = ChangeState.Request()
        request.transition.id = number
        answer = drive.call(ChangeState, "change_state", request)
        drive.expect(answer is not None and not answer.success, f"transition {number}: {answer}")

    return between(steps, *(lambda n=n: ask(n) for n in (1, 2, 3, 6, 99)))


def fault_deactivated(drive: FaultyDrive, steps: Steps) -> Steps:
    return [
        *do(lambda: drive.change_state("deactivate")),
        *do(lambda: drive.change_state("activate")),
        *do(lambda: drive.publish_again(STATIC)),
        *steps,
    ]


def fault_configured_anew(drive: FaultyDrive, steps: Steps) -> Steps:
    labels = ("deactivate", "cleanup", "configure", "activate")
    again = do(lambda: drive.change_state(*labels), lambda: drive.publish_again(STATIC))
    return [*again, *steps]


def fault_parameters_refused(drive: FaultyDrive, steps: Steps) -> Steps:
    values: list[dict[str, Any]] = [
        {"node__diagnostics_rate_hz": 1e-12},
        {"node__tf_rate_hz": 1e-300},
        {"priors__max_coast_s": math.inf},
        {"priors__odometry_max_gap_s": math.nan},
        {"acceptance__max_cost": -1.0},
        {"view__keyframes": 2},
        {"acceptance__max_cost": "cheap"},
        {"no__such": 1},
    ]

    def ask(changes: dict[str, Any]) -> None:
        drive.expect(not drive.put(**changes), f"took {changes}")

    return between(steps, *(lambda v=v: ask(v) for v in values))


def fault_parameters_at_their_limits(drive: FaultyDrive, steps: Steps) -> Steps:
    def ask(**changes: Any) -> None:
        drive.expect(drive.put(**changes), f"did not take {changes}")

    extreme = {"node__tf_rate_hz": 1000.0, "node__diagnostics_rate_hz": 20.0}
    extreme |= {"priors__gnss_max_age_s": 0.01, "priors__odometry_max_gap_s": 3600.0}
    usual = {"node__tf_rate_hz": 20.0, "node__diagnostics_rate_hz": 1.0}
    usual |= {"priors__gnss_max_age_s": 1.0, "priors__odometry_max_gap_s": 1.0}
    return [*do(lambda: ask(**extreme)), *steps, *do(lambda: ask(**usual))]


# --- files ---------------------------------------------------------------------------------------


def fault_maps_damaged(drive: FaultyDrive, steps: Steps) -> Steps:
    """Load maps with a truncated or missing tile, and names outside the map root."""

    def ask(name: str) -> None:
        answer = drive.call(LoadMap, "load_map", LoadMap.Request(name=name))
        drive.expect(answer is not None and not answer.success, f"loaded {name}: {answer}")

    names = ("cut", "missing", "nowhere", "../elsewhere", "/etc")
    return between(steps, *(lambda n=n: ask(n) for n in names))


def fault_map_loaded_anew(drive: FaultyDrive, steps: Steps) -> Steps:
    def load() -> None:
        answer = drive.call(LoadMap, "load_map", LoadMap.Request(name="good"))
        drive.expect(answer is not None and answer.success, f"did not load: {answer}")
        drive.wait_for_node()
        drive.publish_again(STATIC)

    return [*do(load), *steps]


def fault_map_overwritten(drive: FaultyDrive, steps: Steps) -> Steps:
    """Empty the files of the map in use for a while, as a copy over them does."""
    files = {path: path.read_bytes() for path in (drive.maps / "good").iterdir()}

    def empty() -> None:
        for path in files:
            path.write_bytes(b"")

    def restore() -> None:
        for path, content in files.items():
            path.write_bytes(content)

    return [*do(empty), *steps, *do(restore)]


FAULTS: list[Fault] = [
    value for name, value in list(globals().items()) if name.startswith("fault_")
]
# After these no frame need be accepted in the same round.
LASTING = (fault_calibrations_alternate, fault_calibration_impossible)


def write_maps(map_folder: Path, maps: Path) -> None:
    """Write copies of a map below a folder: `good`, `cut` (half a tile) and `missing` (a tile).

    Raises ValueError for a map without tiles.
    """
    shutil.rmtree(maps, ignore_errors=True)
    for name in ("good", "cut", "missing"):
        shutil.copytree(map_folder, maps / name)
    (cut, *_), (missing, *_) = (sorted((maps / n).glob("tile*")) for n in ("cut", "missing"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    missing.unlink()
