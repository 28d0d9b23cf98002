"""ROS messages to the types of the core and back, by ROS's own means where they work.

Pictures go through cv_bridge and quaternions through tf_transformations where these import and
give right answers (a cv_bridge built against another numpy does not), and otherwise through
rosbags-image and scipy. Both ways give the same arrays.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pixloc_ros.geometry import se3
from pixloc_ros.sensors import decoding

Matrix = NDArray[np.float64]
_NS_PER_S = 1_000_000_000


@cache
def backend() -> decoding.Backend:
    """The decoders to use on this machine, tried once."""
    return decoding.Backend(
        pixels=_cv_bridge_pixels if _works(_cv_bridge_check) else decoding.pixels,
        matrix=_tf_matrix if _works(_tf_check) else se3.from_quat_xyzw,
    )


def time_message(stamp_ns: int) -> Time:
    seconds, nanoseconds = divmod(stamp_ns, _NS_PER_S)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def quaternion(T: Matrix) -> Quaternion:
    """Rotation of a (4, 4) with a non-negative w."""
    if backend().matrix is _tf_matrix:
        import tf_transformations

        quat_xyzw = np.asarray(tf_transformations.quaternion_from_matrix(T), np.float64)
        quat_xyzw = -quat_xyzw if quat_xyzw[3] < 0 else quat_xyzw
    else:
        quat_xyzw = se3.quat_xyzw(T)
    x, y, z, w = (float(value) for value in quat_xyzw)
    return Quaternion(x=x, y=y, z=z, w=w)


def pose(T_map_base: Matrix) -> Pose:
    x, y, z = (float(value) for value in T_map_base[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion(T_map_base))


def pose_message(
    T_map_base: Matrix, covariance: Matrix, stamp_ns: int, frame_id: str
) -> PoseWithCovarianceStamped:
    """covariance: (6, 6), translation first, in the axes of frame_id (the order of ROS)."""
    message = PoseWithCovarianceStamped(header=header(stamp_ns, frame_id))
    message.pose.pose = pose(T_map_base)
    message.pose.covariance = covariance.reshape(-1).tolist()
    return message


def transform_message(
    T_parent_child: Matrix, stamp_ns: int, parent: str, child: str
) -> TransformStamped:
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    return TransformStamped(
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=quaternion(T_parent_child)
        ),
    )


def transforms(raw: bytes) -> list[TransformStamped]:
    """Those of an undecoded message of /tf; none of one that cannot be decoded."""
    try:
        return list(deserialize_message(raw, TFMessage).transforms)
    except Exception:  # of rmw, which has no name for what half a message raises
        return []


def _works(check: Any) -> bool:
    """Whether an optional package imports and passes its check; broken ones raise anything."""
    try:
        return bool(check())
    except Exception:
        return False


def _cv_bridge_pixels(message: Any) -> NDArray[Any]:
    from cv_bridge import CvBridge

    return np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="passthrough"))


def _cv_bridge_check() -> bool:
    """Pictures of 16 bits and of three channels must come out as they do without cv_bridge."""
    pictures = [
        SimpleNamespace(
            height=2,
            width=5,
            encoding=encoding,
            is_bigendian=False,
            step=step,
            data=np.arange(2 * step, dtype=np.uint8),
        )
        for encoding, step in (("mono16", 10), ("bgr8", 15))
    ]
    return all(np.array_equal(_cv_bridge_pixels(p), decoding.pixels(p)) for p in pictures)


def _tf_matrix(quat_xyzw: Matrix, translation: Matrix) -> Matrix:
    import tf_transformations

    T = np.asarray(tf_transformations.quaternion_matrix(quat_xyzw), np.float64)
    T[:3, 3] = translation
    return T


def _tf_check() -> bool:
    quat_xyzw, translation = np.array([0.1, -0.2, 0.3, np.sqrt(0.86)]), np.arange(3.0)
    expected = se3.from_quat_xyzw(quat_xyzw, translation)
    return bool(np.allclose(_tf_matrix(quat_xyzw, translation), expected, atol=1e-12))
