"""The topics and services that programs written for AMCL expect, under AMCL's names.

These are the ones of nav2_amcl that make sense without a particle filter. Each does what the
matching part of the node's own interface does.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import Empty

from pixloc_ros.ros.runtime import NodeRuntime
from pixloc_ros.sensors.decoding import BadMessage

TIMEOUT_S = 10.0  # of a search: AMCL's service does not wait for its end
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class LocalizingNode(Protocol):
    """What the interface needs of its node."""

    runtime: NodeRuntime | None

    def get_logger(self) -> Any: ...


class AmclInterface:
    """Offers AMCL's interface from the node's configuration to its cleanup.

    Topics and services: `amcl_pose`, `reinitialize_global_localization`, `request_nomotion_update`
    and, if nav2_msgs is installed, `set_initial_pose`.
    """

    def __init__(self, node: LifecycleNode, localizer: LocalizingNode) -> None:
        self._node = node
        self._localizer = localizer
        self._pose = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped, "amcl_pose", _LATCHED
        )
        create = node.create_service
        self._services = [
            create(Empty, "reinitialize_global_localization", self._search),
            create(Empty, "request_nomotion_update", lambda _, answer: answer),  # every image is
        ]
        if find_spec("nav2_msgs") is not None:
            from nav2_msgs.srv import SetInitialPose

            self._services.append(create(SetInitialPose, "set_initial_pose", self._set_pose))

    def close(self) -> None:
        """Withdraw the topics and services."""
        self._node.destroy_lifecycle_publisher(self._pose)
        for service in self._services:
            self._node.destroy_service(service)

    def publish_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Publish `amcl_pose`, latched as AMCL's is."""
        self._pose.publish(message)

    def _search(self, _: Empty.Request, answer: Empty.Response) -> Empty.Response:
        """Forget the pose and search the whole map; AMCL's service does not report the outcome."""
        self._begin(None)
        return answer

    def _set_pose(self, request: Any, answer: Any) -> Any:
        self._begin(request.pose)
        return answer

    def _begin(self, hint: PoseWithCovarianceStamped | None) -> None:
        runtime = self._localizer.runtime
        if runtime is None or not runtime.enabled:
            self._node.get_logger().warning("the node is not active: the request changes nothing")
            return
        try:
            runtime.relocalize(hint, TIMEOUT_S)
        except BadMessage as error:
            self._node.get_logger().warning(f"set_initial_pose: {error}")
