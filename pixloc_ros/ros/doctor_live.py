"""Watch the topics of a running system for a few seconds and name what is missing.

The topics are those that the node subscribes to, with its remappings; if no node runs, the default
ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from tf2_msgs.msg import TFMessage

from pixloc_ros.config import NodeConfig
from pixloc_ros.doctor import Finding
from pixloc_ros.msg import LocalizationState
from pixloc_ros.ros.connections import plain
from pixloc_ros.ros.message_basics import message_class
from pixloc_ros.ros.mounting_check import FINE, MOUNTING, UNKNOWN
from pixloc_ros.ros.sensor_findings import (
    about_calibration,
    about_odometry,
    about_stamps,
    calibration_of,
)
from pixloc_ros.ros.watched_topic import WatchedTopic
from pixloc_ros.sensors import conversion, topics, video
from pixloc_ros.sensors.events import RefusedMessage, StaticTransformsEvent
from pixloc_ros.sensors.vehicle_frames import VehicleFrames
from pixloc_ros.types import Reason

NODE = "/pixloc_localizer"
MIN_HZ = {"image": 1.0, "camera_info": 0.2, "odom": 5.0}
NEEDED = ("image", "camera_info")
CANNOT_WORK = ("ERROR", "WAITING_MAP", "WAITING_CAMERA_INFO", "WAITING_EXTRINSICS")
_ASKED = (
    "base_frame",
    "odom_frame",
    "camera_frame",
    "camera_mounting",
    "camera_info_url",
    "odom_source",
    "identity_extrinsics",
)
_DISCOVERY_S = 5.0  # at most, for the node to be discovered
_NOBODY_S = 20.0  # if no publisher was discovered by then, there is none
_OF_EVERY_NODE = ("/rosout", "/parameter_events")
_SETTLED_S = 0.7  # without a new topic: then all topics of the node are known

_LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_ANY = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


def examine_live(seconds: float = 5.0, localizer: str = NODE) -> Iterator[Finding]:
    """Yield all findings about the topics; no check changes anything."""
    with _own_node() as (node, executor):
        yield from LiveExamination(node, localizer).run(executor, seconds)


def published_topics(seconds: float = 5.0) -> dict[str, str]:
    """Return the topics that other nodes publish, as types by name.

    seconds: how long no new topic may appear before the list counts as complete; discovery is slow
    on a busy machine.
    """
    with _own_node() as (node, executor):
        known = _published(node)
        end_s = time.monotonic() + (seconds if known else _NOBODY_S)
        while time.monotonic() < end_s:
            _spin(executor, 0.1)
            if (now := _published(node)) != known:
                known, end_s = now, time.monotonic() + seconds
        return known


def _published(node: Node) -> dict[str, str]:
    there = node.get_topic_names_and_types()
    published = {name: kinds[0] for name, kinds in there if node.count_publishers(name)}
    return {name: kind for name, kind in published.items() if name not in _OF_EVERY_NODE}


@contextmanager
def _own_node() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Create a node in a context of its own, and the executor that spins it."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("pixloc_doctor", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


class LiveExamination:
    """Examines the ROS graph once and the messages of a few seconds."""

    def __init__(self, node: Node, localizer: str) -> None:
        self._node = node
        space, _, self._name = localizer.rpartition("/")
        self._space = space or "/"
        self._localizer = localizer
        self._frames = VehicleFrames(lambda refused: None)
        self._state: list[Any] = []
        self._mounting = ""  # what the running node has found about its camera's mounting
        self._config = NodeConfig()

    def run(self, executor: SingleThreadedExecutor, seconds: float) -> Iterator[Finding]:
        """Watch the topics for some seconds; yield all findings."""
        running = self._discovered(executor)
        if running:
            self._config = self._ask_config(executor)
        watched = list(self._topics(running))
        node = self._node
        for each in watched:
            qos = _LATCHED if each.part == "tf_static" else _ANY
            node.create_subscription(message_class(each.kind), each.name, each.take, qos)
        (static,) = (each for each in watched if each.part == "tf_static")
        node.create_subscription(TFMessage, static.name, self._add_static, _LATCHED)
        topic = f"{self._localizer}/state"
        node.create_subscription(LocalizationState, topic, self._state.append, _LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._add_diagnostics, _ANY)
        _spin(executor, seconds)
        yield self._about_node(running)
        if self._mounting:
            fine = self._mounting in (UNKNOWN, FINE)
            yield Finding(MOUNTING, fine, self._mounting, "" if fine else "pixloc calibrate", False)
        for each in watched:
            yield self._about_topic(each, seconds)
        cameras = [each for each in watched if each.part == "image"]
        (odometry,) = (each for each in watched if each.part == "odom")
        yield from about_odometry(odometry, self._frames, self._config)
        for image in cameras:
            of = f" of {image.name}" if len(cameras) > 1 else ""
            info = calibration_of(image, watched)
            yield from about_calibration(image, info, self._frames, self._config, of)
            yield from about_stamps(image, odometry, of)

    def _discovered(self, executor: SingleThreadedExecutor) -> bool:
        """Return whether the node is discovered in time; wait until all of its topics are known."""
        end, known = time.monotonic() + _DISCOVERY_S, 0
        while time.monotonic() < end:
            _spin(executor, 0.1 if known == 0 else _SETTLED_S)
            if (self._name, self._space) not in self._node.get_node_names_and_namespaces():
                continue
            pairs = self._node.get_subscriber_names_and_types_by_node(self._name, self._space)
            if known == len(pairs) > 0:
                break
            known = len(pairs)
        return known > 0

    def _ask_config(self, executor: SingleThreadedExecutor) -> NodeConfig:
        """Read the node's frames from its parameters; use the defaults if it does not tell them.

        A node that lacks one of them, as of another version, answers with none.
        """
        client = self._node.create_client(GetParameters, f"{self._localizer}/get_parameters")
        if not client.wait_for_service(_DISCOVERY_S):
            return self._config
        future = client.call_async(GetParameters.Request(names=[f"node.{n}" for n in _ASKED]))
        executor.spin_until_future_complete(future, _DISCOVERY_S)
        answer = future.result()
        if answer is None or not answer.values:
            return self._config
        values = map(parameter_value_to_python, answer.values)
        told = {name: v for name, v in zip(_ASKED, values, strict=True) if v is not None}
        return self._config.model_copy(update=told)

    def _topics(self, running: bool) -> Iterator[WatchedTopic]:
        """Yield the topics that the node subscribes to; `gnss/pose` and `initialpose` are optional.

        For a rig there are several images and calibrations.
        """
        subscribed: list[tuple[str, str]] = []
        if running:
            pairs = self._node.get_subscriber_names_and_types_by_node(self._name, self._space)
            subscribed = [(kinds[0], name) for name, kinds in sorted(pairs)]
        defaults = topics.Topics()
        from_file = bool(self._config.camera_info_url)
        for part in ("image", *(() if from_file else ("camera_info",)), "odom", "gnss_fix"):
            heard = [(kind, name) for kind, name in subscribed if kind in topics.TYPES[part]]
            for kind, name in heard or [self._default(part, str(getattr(defaults, part)))]:
                yield WatchedTopic(part, name, kind)
        yield WatchedTopic("tf_static", "/tf_static", topics.TYPES["tf_static"][0])

    def _default(self, part: str, name: str) -> tuple[str, str]:
        """Return type and name of a topic, in the variant that is published."""
        names = topics.Topics().images if part == "image" else [name]
        published = {
            (each.topic_type, name)
            for name in names
            for each in self._node.get_publishers_info_by_topic(name)
        }
        wanted = [(kind, name) for name in names for kind in topics.TYPES[part]]
        return next((each for each in wanted if each in published), wanted[0])

    def _add_static(self, message: Any) -> None:
        event = conversion.event_of("tf_static", message, 0)
        if isinstance(event, StaticTransformsEvent):
            self._frames.add_static(event)

    def _add_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.hardware_id == self._localizer.lstrip("/"):
                told = {each.key: each.value for each in status.values}
                self._mounting = told.get(MOUNTING, "")

    def _about_node(self, running: bool) -> Finding:
        if not running:
            remedy = "start it, or name it with --node; topics below are its defaults"
            return Finding(self._localizer, False, "not running", remedy, needed=False)
        if not self._state:
            return Finding(self._localizer, False, "runs, but reports no state", "update it", False)
        state = self._state[-1]
        fine = state.state in ("TRACKING", "DEGRADED", "COASTING")
        remedy = "" if fine else f"docs/guide/troubleshooting.md#{state.reason}"
        detail = f"{state.state} ({state.reason}): {state.message}"
        needed = state.state in CANNOT_WORK or state.reason == Reason.BAD_IMAGE
        return Finding(self._localizer, fine, detail, remedy, needed)

    def _about_topic(self, topic: WatchedTopic, seconds: float) -> Finding:
        needed = topic.part in NEEDED
        publishers = self._node.get_publishers_info_by_topic(topic.name)
        right = [p for p in publishers if p.topic_type == topic.kind]
        if problem := self._unconnected(topic, publishers, right):
            return Finding(topic.name, False, *problem, needed=needed)
        if not topic.received_s:
            remedy = "is the driver running, the network up?"
            return Finding(topic.name, False, f"silent for {seconds:g} s", remedy, needed)
        if topic.part == "tf_static":
            return Finding(topic.name, True, f"frames {self._frames.fixed_frames}")
        if isinstance(event := topic.event, RefusedMessage):
            detail = f"refused ({event.reason}): {event.message}"
            return Finding(topic.name, False, detail, "correct its publisher", needed)
        low = topic.hz < MIN_HZ.get(topic.part, 0.0)
        remedy = f"at least {MIN_HZ.get(topic.part, 0):g} Hz" if low else ""
        frame = video.header(topic.last).frame_id
        detail = f"{topic.kind}, {topic.hz:.1f} Hz, frame '{frame}'"
        return Finding(topic.name, not low and bool(frame), detail, remedy, needed)

    def _unconnected(
        self, topic: WatchedTopic, publishers: list[Any], right: list[Any]
    ) -> tuple[str, str] | None:
        """Return why no message can arrive, and the remedy; None if messages can."""
        if not publishers:
            same = [n for n, kinds in self._node.get_topic_names_and_types() if topic.kind in kinds]
            there = [name for name in same if self._is_published_by_others(name)]
            hint = f"remap to {' or '.join(sorted(there))}" if there else "start its publisher"
            return f"nobody publishes {topic.kind}", hint
        if not right:
            kinds = ", ".join(sorted({p.topic_type for p in publishers}))
            return f"published as {kinds}, not {topic.kind}", "remap to a topic of that type"
        for subscription in self._node.get_subscriptions_info_by_topic(topic.name):
            if (subscription.node_name, subscription.node_namespace) != (self._name, self._space):
                continue
            for publisher in right:
                fits, why = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
                if fits == QoSCompatibility.ERROR:
                    return f"quality of service of {publisher.node_name} does not fit", plain(why)
        return None

    def _is_published_by_others(self, name: str) -> bool:
        """Return whether anybody but the localizer publishes a topic, so it may be remapped to."""
        publishers = self._node.get_publishers_info_by_topic(name)
        us = (self._name, self._space)
        return any((p.node_name, p.node_namespace) != us for p in publishers)


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(left)
