"""A frame near the map's points, for programs that draw with 32-bit coordinates.

In UTM coordinates float32 is accurate to half a metre only. Such a map is drawn in a nearby frame
with a round origin, which a fixed transform joins to the map frame.
"""

from __future__ import annotations

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.ros import conversions

FAR_M = 10_000.0  # beyond this, float32 is coarser than a millimetre
_ROUND_M = 100.0


class LocalVisualizationFrame:
    """The map frame itself, or `<map frame>_near` if the points are far from the map's origin."""

    def __init__(self, node: LifecycleNode, map_frame: str) -> None:
        self.name = map_frame
        self._node = node
        self._map_frame = map_frame
        self._origin = np.zeros(3)
        self._publisher: Publisher | None = None

    def close(self) -> None:
        """Withdraw the transform."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def settle(self, position_map: Matrix) -> None:
        """Place the frame near a position (3,) of the map.

        Unless it coincides with the map frame, it is published on /tf_static.
        """
        self.close()
        self.name, self._origin = self._map_frame, np.zeros(3)
        if np.abs(position_map).max() < FAR_M:
            return
        self.name = f"{self._map_frame}_near"
        self._origin = _ROUND_M * np.round(position_map / _ROUND_M)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = self._node.create_publisher(TFMessage, "/tf_static", latched)
        T_map_near = se3.make(np.eye(3), self._origin)
        now_ns = self._node.get_clock().now().nanoseconds
        joined = conversions.transform_message(T_map_near, now_ns, self._map_frame, self.name)
        self._publisher.publish(TFMessage(transforms=[joined]))

    def points(self, points_map: Matrix) -> Matrix:
        """Convert points (..., 3) from the map frame to this frame."""
        return points_map - self._origin

    def poses(self, T_map_any: Matrix) -> Matrix:
        """Convert poses (..., 4, 4) from the map frame to this frame."""
        return se3.make(np.eye(3), -self._origin) @ T_map_any
