"""One end of a bond: the heartbeats that tell nav2's lifecycle manager that a node is alive.

This is the protocol of bond_core: both ends publish bond/Status with the same `id` on one topic. An
end that is silent for the heartbeat timeout, or sends `active: false`, has broken the bond.
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

PERIOD_S = 0.1  # as in nav2's own nodes
TIMEOUT_S = 4.0  # after this much silence the other end counts as dead
_QUEUE = QoSProfile(depth=100)


def require_messages() -> None:
    """Raise ConfigError if the messages of bonds are not installed."""
    if find_spec("bond") is None:
        raise ConfigError(
            "node.bond needs the messages of bonds: apt install ros-$ROS_DISTRO-bond, or switch it "
            "off and set bond_timeout of the lifecycle manager to 0.0"
        )


class Bond:
    """The node's end of its bond: silent before `begin` and after `end`.

    It lives as long as the node does. DDS drops what was not acknowledged when a publisher goes, so
    on a busy machine the last message of a publisher that went at once was often lost.
    """

    def __init__(self, node: LifecycleNode) -> None:
        from bond.msg import Status

        self._status = Status(
            id=node.get_name(), heartbeat_timeout=TIMEOUT_S, heartbeat_period=PERIOD_S
        )
        self._other = ""  # instance id of the other end, once it was heard alive
        self._earlier_ends: set[str] = set()  # ends of earlier bonds; their messages may be late
        self._answering = False  # whether we are answering an end that broke the bond
        self._publisher = node.create_publisher(Status, "bond", _QUEUE)
        self._subscription = node.create_subscription(Status, "bond", self._on_status, _QUEUE)
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, lambda: self._publish(True), clock=self._clock)
        self._timer.cancel()

    def begin(self) -> None:
        """Start sending heartbeats, under an instance id that is new to the other end."""
        if self._other:
            self._earlier_ends.add(self._other)
        self._other, self._answering = "", False
        self._status.instance_id = str(uuid.uuid4())
        self._timer.reset()

    def end(self) -> None:
        """Break the bond; does nothing if it is broken already."""
        if not self._timer.is_canceled():
            self._timer.cancel()
            self._publish(False)

    def wait_until_heard(self, timeout_s: float) -> None:
        """Wait until all subscribers have acknowledged the last message, at most `timeout_s`.

        The message was sent at once, but DDS asks for acknowledgements only every few seconds, so
        mostly this just gives a busy machine time to deliver it.
        """
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def _on_status(self, message: Any) -> None:
        """Answer each message by which the other end breaks the bond, but no answer to ours."""
        ignored = {self._status.instance_id, *self._earlier_ends}
        if message.id != self._status.id or message.instance_id in ignored:
            return
        if message.active:
            self._other = message.instance_id
        elif message.instance_id != self._other:
            return  # a late message from an end that was never heard alive
        elif not self._timer.is_canceled():
            self._answering = True
            self.end()
        elif self._answering:
            self._publish(False)

    def _publish(self, active: bool) -> None:
        self._status.header.stamp = self._clock.now().to_msg()
        self._status.active = active
        self._publisher.publish(self._status)
