"""Listens on /tf: for poses stated in frames that move, and for odometry that comes as a transform.

tf2_ros would do the same with a thread and a decoder for every message of a busy topic; here
messages stay undecoded until somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.ros import conversions
from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.moving_transforms import MovingTransforms
from pixloc_ros.sensors.static_transforms import StaticTransforms

_UNREAD = 5000  # messages; some seconds of a busy /tf

OnMoved = Callable[[int, Matrix], None]


class MovingFrames:
    """Transforms at a stamp, of /tf and /tf_static together. Used by the executor's thread only."""

    def __init__(self, node: LifecycleNode, static: StaticTransforms) -> None:
        self._node = node
        self._transforms = MovingTransforms(static)
        self._unread: deque[bytes] = deque(maxlen=_UNREAD)
        self._followed: tuple[str, str, OnMoved] | None = None
        self._followed_ns: int | None = None
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = node.create_subscription(TFMessage, "/tf", self._on_raw, qos, raw=True)

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def follow(self, target: str, source: str, on_moved: OnMoved) -> None:
        """From now on call `on_moved(stamp_ns, T_target_source)` whenever that is known anew."""
        self._followed = target, source, on_moved

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix | None:
        """T_target_source (4, 4), or None where nothing joins the two at that time."""
        self._read()
        return self._transforms.lookup(target, source, stamp_ns)

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames known by now."""
        return self._transforms.frames

    def _on_raw(self, raw: bytes) -> None:
        self._unread.append(raw)
        if self._followed is not None:
            self._read()
            self._advance(*self._followed)

    def _read(self) -> None:
        while self._unread:
            for message in conversions.transforms(self._unread.popleft()):
                try:
                    T_parent_child = decoding.pose(message.transform, conversions.backend())
                except BadMessage:
                    continue  # somebody else's business
                names = message.header.frame_id, message.child_frame_id
                self._transforms.add(decoding.stamp_ns(message.header), *names, T_parent_child)

    def _advance(self, target: str, source: str, on_moved: OnMoved) -> None:
        newest_ns = self._transforms.newest_ns(target, source)
        if newest_ns is None or newest_ns == self._followed_ns:
            return
        T_target_source = self._transforms.lookup(target, source, newest_ns)
        if T_target_source is not None:
            self._followed_ns = newest_ns
            on_moved(newest_ns, T_target_source)
