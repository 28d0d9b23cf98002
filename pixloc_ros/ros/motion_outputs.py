"""Publish poses between frames: map->odom, the odometry in the map frame, and the path."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovariance, TwistWithCovariance
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode
from tf2_msgs.msg import TFMessage

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.odometry import Twist
from pixloc_ros.priors.smoothing import TransformSmoother
from pixloc_ros.ros import conversions
from pixloc_ros.ros.live_session import LiveSession
from pixloc_ros.ros.transform_watch import TransformWatch
from pixloc_ros.sensors.vehicle_frames import own_frame
from pixloc_ros.types import Estimate

_UNKNOWN_VARIANCE = 1e6  # of a twist that is not measured


@dataclass(frozen=True, slots=True)
class _Motion:
    """Pose and twist of the vehicle in the map frame at one moment, carried on by odometry."""

    stamp_ns: int
    T_map_base: Matrix
    covariance: Matrix  # (6, 6)
    T_map_odom: Matrix | None
    twist: Twist | None


class MotionOutputs:
    """Publishes poses between frames, from the tracker. Called by the worker and by a timer."""

    def __init__(self, node: LifecycleNode, config: ConfigHolder) -> None:
        self._node = node
        self._config = config
        self._tf = node.create_lifecycle_publisher(TFMessage, "/tf", 100)
        self._odometry = node.create_lifecycle_publisher(Odometry, "~/odometry", 10)
        self._path = node.create_lifecycle_publisher(Path, "~/path", 1)
        self._poses: deque[PoseStamped] = deque(maxlen=config.current.node.max_path_poses)
        self._path_end: Matrix | None = None  # T_map_base of its last pose
        self._sent_ns = 0  # stamp of the newest transform sent
        self._odometry_ns = 0  # stamp of the newest odometry sent
        self._epoch = 0  # of the session, see EventIntake.epoch
        self._smoother = TransformSmoother()
        self.watch = TransformWatch(node, own_frame(config.current.node))

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in (self._tf, self._odometry, self._path):
            self._node.destroy_lifecycle_publisher(publisher)

    def begin_anew(self) -> None:
        """Forget what was sent: later data may belong to another place and time."""
        self._poses.clear()
        self._path_end, self._sent_ns, self._odometry_ns = None, 0, 0
        self._smoother.clear()

    def publish(self, live: LiveSession) -> None:
        """Publish `/tf` and `~/odometry` from the newest data; the transform is post-dated.

        Publishes nothing before the first accepted pose, nothing once that pose is older than
        `max_coast_s`, and no stamp twice, because tf2 warns about repeated ones.
        """
        motion = self._newest(live)
        if motion is None:
            return
        self._publish_odometry(motion)
        if motion.stamp_ns > self._sent_ns:
            self._sent_ns = motion.stamp_ns
            self._publish_transform(motion)

    def publish_odometry(self, live: LiveSession) -> None:
        """Publish only `~/odometry`, from the newest data."""
        if motion := self._newest(live):
            self._publish_odometry(motion)

    def _newest(self, live: LiveSession) -> _Motion | None:
        """Return the vehicle's motion by the newest data; None if it is unknown."""
        with live.locked() as session:
            tracker, epoch = session.tracker, session.intake.epoch
            stamp_ns = max(tracker.accepted_stamp_ns or 0, tracker.odometry.stamp_ns or 0)
            predicted, T_map_odom = tracker.predict(stamp_ns), tracker.T_map_odom
            twist = tracker.odometry.twist()
        if epoch != self._epoch:
            self._epoch = epoch
            self.begin_anew()
        return _Motion(stamp_ns, *predicted, T_map_odom, twist) if predicted else None

    def _publish_odometry(self, motion: _Motion) -> None:
        if motion.stamp_ns > self._odometry_ns:
            self._odometry_ns = motion.stamp_ns
            self._odometry.publish(self._odometry_message(motion))

    def _publish_transform(self, motion: _Motion) -> None:
        config, T_map_odom = self._config.current.node, motion.T_map_odom
        if config.tf_mode == "map_base":
            self._send(motion.T_map_base, motion.stamp_ns)
        elif config.tf_mode == "map_odom" and T_map_odom is not None:
            T_odom_base = se3.inverse(T_map_odom) @ motion.T_map_base
            smoothing = (
                config.tf_smoothing_s,
                config.tf_smoothing_max_m,
                config.tf_smoothing_max_deg,
            )
            T_map_odom = self._smoother.step(motion.stamp_ns, T_map_odom, T_odom_base, *smoothing)
            self._send(T_map_odom, motion.stamp_ns)

    def extend_path(self, estimate: Estimate) -> None:
        """Publish `~/path`: accepted poses some distance apart; the oldest give way to new ones."""
        T_map_base, stamp_ns = estimate.T_map_base, estimate.stamp_ns
        if T_map_base is None:
            return
        config, end = self._config.current.node, self._path_end
        if end is not None and se3.distance_m(end, T_map_base) < config.path_spacing_m:
            return
        self._path_end = T_map_base
        header = conversions.header(stamp_ns, config.map_frame)
        self._poses.append(PoseStamped(header=header, pose=conversions.pose(T_map_base)))
        if self._path.get_subscription_count():
            self._path.publish(Path(header=header, poses=list(self._poses)))

    def _send(self, T_map_child: Matrix, stamp_ns: int) -> None:
        config = self._config.current.node
        valid_ns = stamp_ns + round(config.transform_tolerance_s * 1e9)
        transform = conversions.transform_message(
            T_map_child, valid_ns, config.map_frame, own_frame(config)
        )
        self.watch.expect(transform)
        self._tf.publish(TFMessage(transforms=[transform]))

    def _odometry_message(self, motion: _Motion) -> Odometry:
        config = self._config.current.node
        return Odometry(
            header=conversions.header(motion.stamp_ns, config.map_frame),
            child_frame_id=config.base_frame,
            pose=PoseWithCovariance(
                pose=conversions.pose(motion.T_map_base),
                covariance=motion.covariance.reshape(-1).tolist(),
            ),
            twist=_twist_message(motion.twist),
        )


def _twist_message(twist: Twist | None) -> TwistWithCovariance:
    """Return a twist in the axes of the vehicle; zero with huge variances if it is not measured."""
    message = TwistWithCovariance()
    variances = np.full(6, _UNKNOWN_VARIANCE) if twist is None else twist.sigma**2
    message.covariance = np.diag(variances).reshape(-1).tolist()
    if twist is not None:
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist.velocity.tolist()
    return message
