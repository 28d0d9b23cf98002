"""One end of a bond: heartbeats by which nav2's lifecycle manager knows that a node lives.

The protocol is that of bond_core: both ends publish bond/Status with the same `id` on one topic.
An end that is silent for the heartbeat timeout, or says `active: false`, has broken the bond.
"""

from __future__ import annotations

import uuid
from importlib.util import find_spec
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from pixloc_ros.errors import ConfigError

PERIOD_S = 0.1  # as of nav2's own nodes
TIMEOUT_S = 4.0  # after which silence counts as death
_QUEUE = QoSProfile(depth=100)


def require_messages() -> None:
    """Raise ConfigError where the messages of bonds are not installed."""
    if find_spec("bond") is None:
        raise ConfigError(
            "node.bond needs the messages of bonds: apt install ros-$ROS_DISTRO-bond, or switch it "
            "off and set bond_timeout of the lifecycle manager to 0.0"
        )


class Bond:
    """The node's end of the bond of its name: silent until `begin`, and after `end`.

    It lives as long as the node. DDS forgets what was not yet acknowledged when a publisher goes:
    on a busy machine the last word of one that went at once did often not arrive.
    """

    def __init__(self, node: LifecycleNode) -> None:
        from bond.msg import Status

        self._status = Status(
            id=node.get_name(), heartbeat_timeout=TIMEOUT_S, heartbeat_period=PERIOD_S
        )
        self._other = ""  # instance of the other end, once it was heard alive
        self._of_before: set[str] = set()  # others of earlier bonds, whose words may come late
        self._answering = False  # an end that broke the bond
        self._publisher = node.create_publisher(Status, "bond", _QUEUE)
        self._subscription = node.create_subscription(Status, "bond", self._on_status, _QUEUE)
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, lambda: self._say(True), clock=self._clock)
        self._timer.cancel()

    def begin(self) -> None:
        """Send heartbeats, as an instance that the other end has not met."""
        if self._other:
            self._of_before.add(self._other)
        self._other, self._answering = "", False
        self._status.instance_id = str(uuid.uuid4())
        self._timer.reset()

    def end(self) -> None:
        """Break the bond; nothing where it is broken already."""
        if not self._timer.is_canceled():
            self._timer.cancel()
            self._say(False)

    def wait_until_heard(self, timeout_s: float) -> None:
        """Wait until all who listen have acknowledged what was said, or for this time.

        It was sent at once, and DDS asks for acknowledgements every few seconds only: mostly this
        is the time in which a busy machine hands it over.
        """
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def _on_status(self, message: Any) -> None:
        """Answer an end that breaks the bond, as often as it says so; never one that answers us."""
        ignored = {self._status.instance_id, *self._of_before}
        if message.id != self._status.id or message.instance_id in ignored:
            return
        if message.active:
            self._other = message.instance_id
        elif message.instance_id != self._other:
            return  # late, of an end that was never heard alive
        elif not self._timer.is_canceled():
            self._answering = True
            self.end()
        elif self._answering:
            self._say(False)

    def _say(self, active: bool) -> None:
        self._status.header.stamp = self._clock.now().to_msg()
        self._status.active = active
        self._publisher.publish(self._status)
