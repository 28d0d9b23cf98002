"""Convert types of the core to ROS messages. `sensors.conversion` does the opposite."""

from __future__ import annotations

from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.ros import optional_packages
from pixloc_ros.ros.message_basics import time_message


def header(stamp_ns: int, frame_id: str) -> Header:
    """Build a std_msgs/Header."""
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def quaternion(T: Matrix) -> Quaternion:
    """Return the rotation of a (4, 4) matrix as a quaternion with non-negative w."""
    x, y, z, w = (float(value) for value in optional_packages.quat_xyzw(T))
    return Quaternion(x=x, y=y, z=z, w=w)


def pose(T_map_base: Matrix) -> Pose:
    """Convert T_map_base (4, 4) to a geometry_msgs/Pose."""
    x, y, z = (float(value) for value in T_map_base[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion(T_map_base))


def pose_message(
    T_map_base: Matrix, covariance: Matrix, stamp_ns: int, frame_id: str
) -> PoseWithCovarianceStamped:
    """Build a pose message.

    covariance: (6, 6), translation first, in the axes of frame_id (the ROS order), m^2 and rad^2.
    """
    message = PoseWithCovarianceStamped(header=header(stamp_ns, frame_id))
    message.pose.pose = pose(T_map_base)
    message.pose.covariance = covariance.reshape(-1).tolist()
    return message


def transform_message(
    T_parent_child: Matrix, stamp_ns: int, parent: str, child: str
) -> TransformStamped:
    """Convert T_parent_child (4, 4) to a TransformStamped."""
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    return TransformStamped(
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=quaternion(T_parent_child)
        ),
    )


def transforms(raw: bytes) -> list[TransformStamped]:
    """Return the transforms in an undecoded /tf message; none if it cannot be decoded."""
    try:
        return list(deserialize_message(raw, TFMessage).transforms)
    except Exception:  # rmw raises no specific type for a truncated message
        return []
