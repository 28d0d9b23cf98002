"""Subscriptions: callbacks that check, count and store, and never do long work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import NavSatFix
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pixloc_ros.config import Config
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.ros import conversions
from pixloc_ros.ros.cameras import Cameras, ImageGroup, refuse
from pixloc_ros.ros.diagnostics import Counters
from pixloc_ros.ros.latest_item import LatestItem
from pixloc_ros.ros.moving_frames import MovingFrames
from pixloc_ros.ros.shared_tracker import SharedTracker
from pixloc_ros.sensors import conversion, topics
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    Event,
    FixEvent,
    OdometryEvent,
    PoseEvent,
    RejectedEvent,
    StaticTransformEvent,
)
from pixloc_ros.sensors.static_transforms import StaticTransforms, normalized

SENSOR = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


Value = TypeVar("Value")


class Inputs:
    """All that the node listens to; read by the worker while callbacks write."""

    def __init__(
        self,
        node: LifecycleNode,
        config: Config,
        tracker: SharedTracker,
        mailbox: LatestItem[ImageGroup],
        tally: Counters,
    ) -> None:
        self.cameras = Cameras(node, config.node, mailbox, tally)
        self._node = node
        self._config, self._priors = config.node, config.priors
        self._tracker = tracker
        self._tally = tally
        self._static = StaticTransforms()
        self._changed = threading.Condition()
        self._moving = MovingFrames(node, self._static)
        self._subscriptions = self._subscribe()

    def close(self) -> None:
        """Stop listening."""
        self._moving.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self.cameras.close()

    def reconfigure(self, config: Config) -> None:
        """Go on with other settings of what is subscribed."""
        self._config, self._priors = config.node, config.priors

    def transform(self, target: str, source: str) -> Matrix | None:
        """T_target_source (4, 4) along /tf_static, or None where nothing joins the two."""
        with self._changed:
            return self._static.lookup(target, source)

    def frames(self) -> tuple[str, ...]:
        """Names of all frames of /tf_static."""
        with self._changed:
            return self._static.frames

    def wait_for(self, get: Callable[[], Value | None], timeout_s: float) -> Value | None:
        """What `get` returns, once a message makes it something; None when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: get() is not None, timeout_s)
            return get()

    def _subscribe(self) -> list[Any]:
        on, take = self._node.create_subscription, self._taking
        return [
            on(NavSatFix, "gnss/fix", take("gnss_fix", self._on_fix), SENSOR),
            on(PoseWithCovarianceStamped, "gnss/pose", take("gnss_pose", self._on_pose), SENSOR),
            on(
                PoseWithCovarianceStamped,
                "initialpose",
                take("initialpose", self._on_pose),
                COMMAND,
            ),
            on(TFMessage, "/tf_static", take("tf_static", self._on_static), LATCHED),
            *self._subscribe_odometry(),
        ]

    def _subscribe_odometry(self) -> list[Any]:
        frames = self._config.odom_frame, self._config.base_frame
        if self._config.odom_source == "tf":
            self._moving.follow(*frames, self._on_moved)
            return []
        take = self._taking("odom", self._on_odometry)
        return [self._node.create_subscription(Odometry, "odom", take, SENSOR)]

    def _taking(self, part: str, store: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that converts a message and stores its events, or counts why it cannot."""

        def callback(message: Any) -> None:
            self._tally.add(f"{part}.received")
            try:
                for event in _events(part, message):
                    if isinstance(event, RejectedEvent):
                        self.refuse(part, BadMessage(event.reason, event.message))
                    else:
                        store(event)
            except BadMessage as error:
                self.refuse(part, error)

        return callback

    def refuse(self, part: str, error: BadMessage) -> None:
        """Count a useless message; the first of its kind is logged."""
        refuse(self._node, self._tally, part, error)

    def _on_odometry(self, event: OdometryEvent) -> None:
        self._require_frame(event.frame_id, self._config.odom_frame)
        child = event.child_frame_id or self._config.base_frame
        T_child_base = self.transform(child, self._config.base_frame)
        if T_child_base is None:
            raise BadMessage(
                "frame",
                f"odometry is of frame '{child}', which nothing on /tf_static joins "
                f"to base_frame '{self._config.base_frame}'",
            )
        with self._tracker.locked() as tracker:
            tracker.add_odometry(event.stamp_ns, event.T_odom_base @ T_child_base)

    def _on_moved(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        self._tally.add("odom_tf.received")
        with self._tracker.locked() as tracker:
            tracker.add_odometry(stamp_ns, T_odom_base)

    def _on_fix(self, event: FixEvent) -> None:
        antenna = antenna_base(
            self._priors, self.transform, self._config.base_frame, event.frame_id
        )
        if antenna is None and self._tally.add("gnss_fix.antenna_unknown") == 1:
            self._node.get_logger().warning(
                f"fixes are of frame '{event.frame_id}', which /tf_static does not join to "
                f"'{self._config.base_frame}': taken as of that; see priors.gnss_antenna_m"
            )
        with self._tracker.locked() as tracker:
            tracker.add_fix(
                event.stamp_ns,
                event.latitude_deg,
                event.longitude_deg,
                event.altitude_m,
                event.covariance_enu,
                event.status,
                antenna,
            )

    def hint(self, message: PoseWithCovarianceStamped, now_ns: int) -> None:
        """Take a pose as from `initialpose`; stamp 0 is now. Raises BadMessage."""
        stamp = message.header.stamp
        if not (stamp.sec or stamp.nanosec):
            stamp = conversions.time_message(now_ns)
        header = Header(stamp=stamp, frame_id=message.header.frame_id)
        stated = PoseWithCovarianceStamped(header=header, pose=message.pose)
        (event,) = _events("initialpose", stated)
        assert isinstance(event, PoseEvent)
        event = self._in_map(event)
        with self._tracker.locked() as tracker:
            fault = tracker.add_pose(
                event.stamp_ns, event.T_map_base, event.covariance, "initialpose"
            )
        if fault:
            raise BadMessage(fault, f"the pose is refused: {fault.replace('_', ' ')}")

    def _on_pose(self, event: PoseEvent) -> None:
        event = self._in_map(event)
        with self._tracker.locked() as tracker:
            tracker.add_pose(event.stamp_ns, event.T_map_base, event.covariance, event.source)

    def _in_map(self, event: PoseEvent) -> PoseEvent:
        """The pose in the map, from any frame that /tf joins to it at that time."""
        map_frame, frame = self._config.map_frame, event.frame_id
        T_map_frame = self._moving.lookup(map_frame, frame, event.stamp_ns)
        if T_map_frame is None:
            known = ", ".join(self._moving.frames) or "nothing yet"
            raise BadMessage(
                "frame",
                f"the pose is in frame '{frame}', which /tf does not join to '{map_frame}' at its "
                f"stamp; there are {known}",
            )
        return event.seen_from(T_map_frame)

    def _on_static(self, event: StaticTransformEvent) -> None:
        with self._changed:
            self._static.add(event.parent, event.child, event.T_parent_child)
            self._changed.notify_all()

    def _require_frame(self, frame_id: str, expected: str) -> None:
        if normalized(frame_id) != normalized(expected):
            raise BadMessage("frame", f"frame is '{frame_id}', expected '{expected}'")


_TYPES = {part: types[0] for part, types in topics.TYPES.items()}


def _events(part: str, message: Any) -> list[Event]:
    return conversion.events(part, _TYPES[part], message, conversions.backend())
