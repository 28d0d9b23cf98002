"""Notice another publisher of the transform that this node publishes.

With two publishers of map->odom, every consumer sees the vehicle jump between two places, and none
of them says why.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.lifecycle import LifecycleNode

from pixloc_ros.ros import conversions
from pixloc_ros.sensors.static_transforms import normalized

_REMEMBERED = 500  # our own latest transforms, which may yet come back to us on /tf


class TransformWatch:
    """Judges what comes on /tf, until somebody else sends a transform of our child frame."""

    def __init__(self, node: LifecycleNode, child_frame: str) -> None:
        self.finding = ""
        self._node = node
        self._child = normalized(child_frame)
        self._sent: deque[tuple[Any, ...]] = deque(maxlen=_REMEMBERED)

    def expect(self, transform: TransformStamped) -> None:
        """Note a transform of our own. Call it before publishing the transform."""
        self._sent.append(_identity(transform))

    def take(self, raw: bytes) -> None:
        """Judge an undecoded message; its bytes already show whether they name our frame."""
        if self.finding or not self._child or self._child.encode() + b"\0" not in raw:
            return
        sent = list(self._sent)
        for transform in conversions.transforms(raw):
            ours = normalized(transform.child_frame_id) == self._child
            if ours and _identity(transform) not in sent:
                self._found(transform)

    def _found(self, transform: TransformStamped) -> None:
        me = (self._node.get_name(), self._node.get_namespace())
        publishers = self._node.get_publishers_info_by_topic("/tf")
        others = {(p.node_name, p.node_namespace) for p in publishers} - {me}
        names = ", ".join(sorted(f"{space.rstrip('/')}/{name}" for name, space in others))
        self.finding = (
            f"{transform.header.frame_id} -> {transform.child_frame_id} is also published by "
            f"somebody else, among {names or 'nobody known'}: stop it, or set node.tf_mode to none"
        )
        self._node.get_logger().warning(self.finding)


def _identity(transform: TransformStamped) -> tuple[Any, ...]:
    stamp, shift = transform.header.stamp, transform.transform.translation
    return stamp.sec, stamp.nanosec, shift.x, shift.y, shift.z
