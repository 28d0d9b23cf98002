"""A real node in a process of its own, and a test rig that talks to it over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, NavSatFix
from tf2_msgs.msg import TFMessage

from helpers.programs import failure_in, watched
from pixloc_ros.msg import AlignmentStatus
from pixloc_ros.replay.storage import RawMessage, open_sources
from pixloc_ros.ros.message_basics import message_class
from pixloc_ros.sensors import topics
from pixloc_ros.sensors.decoding import stamp_ns
from pixloc_ros.sensors.video import header

PATIENCE_S = 120.0  # for anything at all to happen on a busy machine
START_S = 600.0  # to import, and to load a map; a node that has ended is not waited for
LAST_WORDS_S = 1.0  # for what a program sent before its end
NODE = "from pixloc_ros.ros.executable import run; run('node')"
VIDEO_ENDS = {topics.FFMPEG_PACKET: "ffmpeg", topics.COMPRESSED_VIDEO: "foxglove"}
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CLASSES = {
    topics.IMAGE: Image,
    topics.CAMERA_INFO: CameraInfo,
    topics.ODOMETRY: Odometry,
    topics.NAV_SAT_FIX: NavSatFix,
    topics.POSE_WITH_COVARIANCE: PoseWithCovarianceStamped,
    topics.TF_MESSAGE: TFMessage,
}
INPUTS = {
    "/image": Image,
    "/camera_info": CameraInfo,
    "/odom": Odometry,
    "/gnss/fix": NavSatFix,
    "/initialpose": PoseWithCovarianceStamped,
}
# Names in the node's counters.
PARTS = {
    "/camera_info": "camera_info",
    "/odom": "odom",
    "/gnss/fix": "gnss_fix",
    "/initialpose": "initialpose",
    "/tf_static": "tf_static",
    "/tf": "odom_tf",
}


def environment(domain: int) -> dict[str, str]:
    """For processes that are to live in a domain."""
    return {**os.environ, "ROS_DOMAIN_ID": str(domain)}


@contextmanager
def running_node(
    log: Path,
    domain: int,
    space: str = "",
    program: Sequence[str | Path] = ("-c", NODE),
    **parameters: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """The node as a process; `log` gets what it says. Ended by its process id.

    space: namespace of the node and of its /tf and /tf_static, as `/left`.
    program: what Python is to run instead of the node.
    """
    command = [sys.executable, *map(str, program), "--ros-args"]
    if space:
        for rule in (f"__ns:={space}", "/tf:=tf", "/tf_static:=tf_static"):
            command += ["-r", rule]
    for name, value in {"node.last_pose_file": "''", **parameters}.items():
        command += ["-p", f"{name}:={value}"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(domain)
        )
    try:
        with watched(process, log, domain):
            yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(PATIENCE_S) == 0
            finally:
                process.kill()
                process.wait()
    assert process.returncode == 0, log.read_text()


@contextmanager
def running_player(bag: Path, log: Path, domain: int, *options: object) -> Iterator[None]:
    """The bag player as a process, ended by a signal if the bag does not end before."""
    command = [sys.executable, "-m", "pixloc_ros.ros.executable", "bag_player", bag]
    command += ["--timeout", PATIENCE_S, *options]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, command)], stdout=file, stderr=file, env=environment(domain)
        )
    try:
        with watched(process, log, domain, may_end=True):
            yield
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, log.read_text()


class Bag:
    """The messages of a bag as those of rclpy, by topic, and in order."""

    def __init__(self, path: Path) -> None:
        from rclpy.serialization import deserialize_message

        (source,) = open_sources(path)
        raws: list[RawMessage] = list(source.messages(set(source.types), None, None))
        self.messages = [
            (raw.topic, deserialize_message(bytes(raw.data), CLASSES[source.types[raw.topic]]))
            for raw in raws
        ]
        source.close()

    def on(self, topic: str) -> list[Any]:
        return [message for name, message in self.messages if name == topic]

    def between(self, first: Any, last: Any) -> list[tuple[str, Any]]:
        """The messages from one to another; from the beginning where it is the first image."""
        index = [next(i for i, (_, m) in enumerate(self.messages) if m is x) for x in (first, last)]
        images = (i for i, (topic, _) in enumerate(self.messages) if topic.endswith("/image"))
        return self.messages[0 if index[0] == next(images) else index[0] : index[1]]


class Rig:
    """Publishes what a vehicle would and remembers what the node says."""

    def __init__(
        self,
        domain: int,
        space: str = "",
        compressed: bool = False,
        video: str = "",
        tf_odometry: bool = False,
        cameras: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> None:
        self.name = name = f"{space}/pixloc_localizer"  # of the node that it talks to
        self._domain = domain
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("test_rig", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        create = self.node.create_publisher
        inputs: dict[str, Any] = dict(INPUTS) | ({"/tf": TFMessage} if tf_odometry else {})
        if cameras:
            inputs |= {f"/{c}{t}": inputs[t] for c in cameras for t in ("/image", "/camera_info")}
            del inputs["/image"], inputs["/camera_info"]
        for topic in without:
            del inputs[topic]
        names = {topic: f"{space}{topic}" for topic in inputs}
        if compressed:
            names["/image"], inputs["/image"] = f"{space}/image/compressed", CompressedImage
        if video:
            names["/image"] = f"{space}/image/{VIDEO_ENDS[video]}"
            inputs["/image"] = message_class(video)
        if tf_odometry:
            del inputs["/odom"]
        self._publishers = {topic: create(inputs[topic], names[topic], 50) for topic in inputs}
        self._publishers["/tf_static"] = create(TFMessage, f"{space}/tf_static", LATCHED)
        self._clients: dict[str, Any] = {}
        self._sent: Counter[str] = Counter()
        self._last_image: tuple[str, Any] | None = None
        self.statuses: list[AlignmentStatus] = []
        self.poses: list[PoseWithCovarianceStamped] = []
        self.transforms: list[Any] = []
        self.heard: dict[str, list[Any]] = {}
        self.diagnostics: dict[str, str] = {}
        self.state = ""
        listen = self.node.create_subscription
        self._subscriptions = [
            listen(AlignmentStatus, f"{name}/status", self.statuses.append, 50),
            listen(PoseWithCovarianceStamped, f"{name}/pose", self.poses.append, 50),
            listen(TFMessage, f"{space}/tf", lambda m: self.transforms.extend(m.transforms), 50),
        ]
        self._subscriptions_of_diagnostics = [
            listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        ]

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def until(self, done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
        """Let messages come until `done`; fails naming what did not happen.

        Of a program that has ended, only what it had sent is waited for.
        """
        end, failure = time.monotonic() + patience_s, ""
        self._executor.spin_once(0.02)
        while not done():
            if not failure and (failure := failure_in(self._domain)):
                end = time.monotonic() + LAST_WORDS_S
            why = failure or f"last state: {self.state}"
            assert time.monotonic() < end, f"waited in vain for {what}; {why}"
            self._executor.spin_once(0.05)

    def until_state(self, words: str, topic: str, image: Any) -> None:
        """Wait for a state while the camera goes on: after two seconds it counts as silent."""
        self.until_shown(topic, image, lambda: words in self.state, words, every_s=1.0)

    def until_shown(
        self,
        topic: str,
        image: Any,
        done: Callable[[], Any],
        what: str,
        every_s: float = PATIENCE_S / 6,
    ) -> None:
        """Wait, sending an image again and again: it may be lost, and counts as repeated if not."""
        sent_s = time.monotonic()

        def reached() -> Any:
            nonlocal sent_s
            if not (there := done()) and time.monotonic() - sent_s > every_s:
                sent_s = time.monotonic()
                self.send(topic, image)
            return there

        self.until(reached, what)

    def listen(self, kind: Any, name: str, qos: Any = 50) -> list[Any]:
        """What the node says from now on on a topic of its own."""
        heard = self.heard.setdefault(name, [])
        create = self.node.create_subscription
        new = create(kind, f"{self.name}/{name}", heard.append, qos)
        self.until(lambda: self._is_told(new), f"a publisher of {name}")
        return heard

    def connected(self) -> bool:
        """Whether rig and node have found each other, which DDS does for each side on its own."""
        return all(map(self.is_heard, self._publishers.values())) and all(
            map(self._is_told, self._subscriptions)
        )

    def is_heard(self, publisher: Any) -> bool:
        """Whether the node hears all publishers of a topic that this rig knows of."""
        name = publisher.topic_name
        known = self.diagnostics.get(f"publishers of {name}")
        there = publisher.get_subscription_count()
        return bool(there and known == str(self.node.count_publishers(name)))

    def _is_told(self, subscription: Any) -> bool:
        name = subscription.topic_name
        known = self.diagnostics.get(f"subscribers of {name}")
        there = subscription.get_publisher_count()
        return bool(there and known == str(self.node.count_subscribers(name)))

    def send_raw(self, topic: str, content: Any) -> None:
        """Publish a message that is not waited for, or bytes that need not be one."""
        self._publishers[topic].publish(content)

    def send(self, topic: str, message: Any) -> None:
        self._publishers[topic].publish(message)
        self._sent[topic] += 1
        if isinstance(message, Image | CompressedImage):
            self._last_image = topic, message

    def is_new(self) -> bool:
        """Whether the node has counted nothing yet; reports of an earlier activation linger."""
        counted = any(key.startswith("count ") for key in self.diagnostics)
        return "no image yet" in self.state and bool(self.diagnostics) and not counted

    def arrived(self) -> bool:
        """Whether the node counts all that was sent since it was activated."""
        counted = {
            topic: self.diagnostics.get(f"count {PARTS[topic]}.received", "0") for topic in PARTS
        }
        return all(int(counted[topic]) >= self._sent[topic] for topic in PARTS)

    def look(self, image: Any) -> AlignmentStatus:
        """Publish an image and return the node's verdict on it.

        Images are sent as sensors do, best effort: on a busy machine one may be lost, so it is sent
        once more where nothing is said of it. One that had arrived counts as repeated.
        """
        self.send("/image", image)
        return self.verdict_on_sent({"/image": image})

    def verdict_on_sent(self, images: dict[str, Any]) -> AlignmentStatus:
        """As look, for images of one moment by topic, that were sent just now; the lead first."""
        lead = next(iter(images.values()))
        try:
            return self.verdict_on(lead, patience_s=PATIENCE_S / 3)
        except AssertionError:
            for topic, image in images.items():
                self.send(topic, image)
        return self.verdict_on(lead)

    def verdict_on(self, image: Any, patience_s: float = PATIENCE_S) -> AlignmentStatus:
        """What the node says of an image that was sent."""
        stamp = stamp_ns(header(image))
        self.until(
            lambda: self.statuses and stamp_ns(self.statuses[-1].header) == stamp,
            f"the status of image {stamp}",
            patience_s,
        )
        return self.statuses[-1]

    def play(self, messages: list[tuple[str, Any]]) -> list[AlignmentStatus]:
        """Publish messages in order, waiting for the verdict on each image.

        Between topics DDS keeps no order: an image is sent when all before it has arrived, and all
        has when this returns.
        """
        verdicts = []
        for topic, message in messages:
            if topic == "/image":
                self.until(self.arrived, "the arrival of what was sent")
                verdicts.append(self.look(message))
            else:
                self.send(topic, message)
        self.until(self.arrived, "the arrival of what was sent")
        return verdicts

    def report(self) -> dict[str, str]:
        """A diagnostics report that begins after this call."""
        self.diagnostics = {}
        self.until(lambda: self.diagnostics, "diagnostics")
        self.diagnostics = {}
        self.until(lambda: self.diagnostics, "diagnostics")
        return self.diagnostics

    def report_with_camera(self) -> dict[str, str]:
        """As report, of a camera that goes on: on a busy machine two seconds are soon over."""
        report = self.report()
        while report["state reason"] == "images_stopped" and self._last_image:
            self.send(*self._last_image)
            report = self.report()
        return report

    def change_state(self, label: str) -> bool:
        """Ask for a lifecycle transition: configure, activate, deactivate, cleanup."""
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(ChangeState, "change_state", request).success)

    def lifecycle_state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The answer of a service of the node."""
        future = self.begin_call(kind, name, request)
        self.until(future.done, f"the answer of {name}")
        return future.result()

    def begin_call(self, kind: Any, name: str, request: Any) -> Any:
        """Ask a service of the node; the future of its answer."""
        client = self._clients.get(name)
        if client is None:
            full_name = name if name.startswith("/") else f"{self.name}/{name}"
            client = self.node.create_client(kind, full_name)
            self._clients[name] = client
            self.until(client.service_is_ready, f"the service {name}", START_S)
            self._wait_until_known()
        return client.call_async(request)

    def _wait_until_known(self) -> None:
        """Wait until the node has heard of what was created last; before, its answers are lost.

        News of endpoints arrive in order, so one more subscription is made and waited for.
        """
        self._subscriptions_of_diagnostics.append(
            self.node.create_subscription(DiagnosticArray, "/diagnostics", lambda _: None, 1)
        )
        self.until(
            lambda: (
                int(self.diagnostics.get("subscribers of /diagnostics", 0))
                >= self.node.count_subscribers("/diagnostics")
            ),
            "the node to hear of a client",
        )

    def parameters(self, *names: str, of: str = "") -> list[Any]:
        """Values of the parameters of a node, of the localizer where no other is named."""
        request = GetParameters.Request(names=list(names))
        service = f"{of or self.name}/get_parameters"
        values = self.call(GetParameters, service, request).values
        return [parameter_value_to_python(value) for value in values]

    def forget(self) -> None:
        """Drop what was heard so far, once the poses have come of all frames that were told of."""
        self.until(lambda: len(self.poses) >= sum(s.localized for s in self.statuses), "all poses")
        for heard in (self.statuses, self.poses, self.transforms, *self.heard.values()):
            heard.clear()

    def begin_again(self) -> None:
        """As forget, for a node whose counters have begun anew."""
        self.forget()
        self._sent.clear()
        self.report()  # the one before may still be of earlier

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        (status,) = message.status
        if not self.name.endswith(f"/{status.hardware_id}"):
            return  # of another node
        self.state = status.message
        self.diagnostics = {pair.key: pair.value for pair in status.values}


@contextmanager
def fresh_rig(domain: int, **kind: Any) -> Iterator[Rig]:
    """A rig, of a kind as for Rig, connected to a running node, which begins anew.

    In whatever state the test before has left it.
    """
    with Rig(domain, **kind) as rig:
        if rig.lifecycle_state() == "active":
            assert rig.change_state("deactivate")
        if rig.lifecycle_state() == "unconfigured":
            assert rig.change_state("configure")
        if rig.lifecycle_state() == "inactive":
            assert rig.change_state("activate")
        rig.diagnostics = {}  # of before
        rig.until(lambda: rig.is_new() and rig.connected(), "a node that begins anew")
        rig.forget()
        yield rig
