"""Publishers of what carries an accepted pose on: map->odom, the odometry in the map, the path."""

from __future__ import annotations

from collections import deque

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovariance, TwistWithCovariance
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode
from tf2_msgs.msg import TFMessage

from pixloc_ros.config import NodeConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.odometry import Twist
from pixloc_ros.priors.smoothing import TransformSmoother
from pixloc_ros.ros import conversions
from pixloc_ros.ros.shared_tracker import SharedTracker
from pixloc_ros.ros.transform_watch import TransformWatch
from pixloc_ros.types import Estimate

_LOOPED_NS = 1_000_000_000  # stamps further back are of a bag that began anew
_UNKNOWN_VARIANCE = 1e6  # of a twist that nothing measures


class MotionOutputs:
    """Poses between frames, from the tracker. Called by the worker and by a steady timer."""

    def __init__(self, node: LifecycleNode, config: NodeConfig) -> None:
        self._node = node
        self._config = config
        self._tf = node.create_lifecycle_publisher(TFMessage, "/tf", 100)
        self._odometry = node.create_lifecycle_publisher(Odometry, "~/odometry", 10)
        self._path = node.create_lifecycle_publisher(Path, "~/path", 1)
        self._poses: deque[PoseStamped] = deque(maxlen=config.max_path_poses)
        self._path_end: tuple[int, Matrix] | None = None
        self._sent_ns = 0  # stamp of the newest transform sent
        self._smoother = TransformSmoother(*_smoothing(config))
        self._watch = TransformWatch(node, self._child_frame())

    def close(self) -> None:
        """Withdraw the topics."""
        self._watch.close()
        for publisher in (self._tf, self._odometry, self._path):
            self._node.destroy_lifecycle_publisher(publisher)

    def reconfigure(self, config: NodeConfig) -> None:
        """Go on with other tolerances and smoothing."""
        self._config = config
        self._smoother.adjust(*_smoothing(config))

    def begin_anew(self) -> None:
        """Forget what was sent: what comes now may be of another place and time."""
        self._poses.clear()
        self._path_end, self._sent_ns = None, 0
        self._smoother.clear()

    @property
    def intruder(self) -> str:
        """Who else publishes our transform, in one line; empty while nobody does."""
        return self._watch.finding

    def publish(self, tracker: SharedTracker) -> None:
        """`/tf` and `~/odometry` as of the newest data; the transform is post-dated.

        Nothing before the first accepted pose, nothing once it is older than `max_coast_s`, and
        no stamp twice, which tf2 complains about.
        """
        with tracker.locked() as known:
            stamp_ns = max(known.accepted_stamp_ns or 0, known.odometry_stamp_ns or 0)
            predicted, T_map_odom, twist = known.predict(stamp_ns), known.T_map_odom, known.twist
        if predicted is None or 0 <= self._sent_ns - stamp_ns < _LOOPED_NS:
            return
        self._sent_ns = stamp_ns
        self._odometry.publish(self._odometry_message(*predicted, twist, stamp_ns))
        T_map_base = predicted[0]
        if self._config.tf_mode == "map_base":
            self._send(T_map_base, stamp_ns)
        elif self._config.tf_mode == "map_odom" and T_map_odom is not None:
            T_odom_base = se3.inverse(T_map_odom) @ T_map_base
            self._send(self._smoother.step(stamp_ns, T_map_odom, T_odom_base), stamp_ns)

    def extend_path(self, estimate: Estimate) -> None:
        """`~/path`, of accepted poses some distance apart; the oldest make room for new ones."""
        T_map_base, stamp_ns = estimate.T_map_base, estimate.stamp_ns
        if T_map_base is None:
            return
        if self._path_end is not None:
            end_ns, T_end = self._path_end
            if stamp_ns < end_ns:
                self._poses.clear()  # a bag that began anew
            elif se3.distance_m(T_end, T_map_base) < self._config.path_spacing_m:
                return
        self._path_end = stamp_ns, T_map_base
        header = conversions.header(stamp_ns, self._config.map_frame)
        self._poses.append(PoseStamped(header=header, pose=conversions.pose(T_map_base)))
        if self._path.get_subscription_count():
            self._path.publish(Path(header=header, poses=list(self._poses)))

    def _child_frame(self) -> str:
        """The frame whose parent is ours to say; empty when it is not."""
        config = self._config
        return {"map_odom": config.odom_frame, "map_base": config.base_frame}.get(
            config.tf_mode, ""
        )

    def _send(self, T_map_child: Matrix, stamp_ns: int) -> None:
        valid_ns = stamp_ns + round(self._config.transform_tolerance_s * 1e9)
        transform = conversions.transform_message(
            T_map_child, valid_ns, self._config.map_frame, self._child_frame()
        )
        self._watch.expect(transform)
        self._tf.publish(TFMessage(transforms=[transform]))

    def _odometry_message(
        self, T_map_base: Matrix, covariance: Matrix, twist: Twist | None, stamp_ns: int
    ) -> Odometry:
        return Odometry(
            header=conversions.header(stamp_ns, self._config.map_frame),
            child_frame_id=self._config.base_frame,
            pose=PoseWithCovariance(
                pose=conversions.pose(T_map_base), covariance=covariance.reshape(-1).tolist()
            ),
            twist=_twist_message(twist),
        )


def _smoothing(config: NodeConfig) -> tuple[float, float, float]:
    return config.tf_smoothing_s, config.tf_smoothing_max_m, config.tf_smoothing_max_deg


def _twist_message(twist: Twist | None) -> TwistWithCovariance:
    """In the axes of the vehicle; zero with huge variances when nothing measures it."""
    message = TwistWithCovariance()
    variances = np.full(6, _UNKNOWN_VARIANCE) if twist is None else twist.sigma**2
    message.covariance = np.diag(variances).reshape(-1).tolist()
    if twist is not None:
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist.velocity.tolist()
    return message
