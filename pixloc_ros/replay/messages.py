"""Build ROS 2 messages from our types, serialized without ROS by `rosbags`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from pixloc_ros.common import image_files
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.sensors import topics

NS_PER_S = 1_000_000_000
JPEG_FORMAT = "rgb8; jpeg compressed bgr8"  # as image_transport writes it
# Definitions of messages that are not part of ROS.
_DEFINITIONS = {
    topics.FFMPEG_PACKET: """std_msgs/Header header
        int32 width
        int32 height
        string encoding
        uint64 pts
        uint8 flags
        bool is_bigendian
        uint8[] data""",
    topics.COMPRESSED_VIDEO: """builtin_interfaces/Time timestamp
        string frame_id
        uint8[] data
        string format""",
}
_FOREVER = QosTime(9223372036, 854775807)  # as rosbag2 writes it
# A latched topic: players and recorders repeat its messages to late subscribers.
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=_FOREVER,
    lifespan=_FOREVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_FOREVER,
    avoid_ros_namespace_conventions=False,
)


@cache
def typestore() -> Typestore:
    """Return the message definitions of ROS 2 Jazzy, and those of video."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, definition in _DEFINITIONS.items():
        store.register(get_types_from_msg(definition, name))
    return store


def _make(msgtype: str, **values: Any) -> Any:
    return typestore().types[msgtype](**values)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Build a std_msgs/Header."""
    time = _make(
        "builtin_interfaces/msg/Time", sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S
    )
    return _make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def image(stamp_ns: int, frame_id: str, image_rgb: np.ndarray) -> Any:
    """Build a sensor_msgs/Image, rgb8, of an image (H, W, 3)."""
    height, width = image_rgb.shape[:2]
    return _make(
        topics.IMAGE,
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(image_rgb).reshape(-1),
    )


def video_packet(stamp_ns: int, frame_id: str, encoding: str, data: bytes) -> Any:
    """Build an ffmpeg_image_transport_msgs/FFMPEGPacket of one image; its size is the video's."""
    return _make(
        topics.FFMPEG_PACKET,
        header=header(stamp_ns, frame_id),
        width=0,
        height=0,
        encoding=encoding,
        pts=stamp_ns,
        flags=0,
        is_bigendian=False,
        data=np.frombuffer(data, np.uint8),
    )


def compressed_image(stamp_ns: int, frame_id: str, jpeg: bytes) -> Any:
    """Build a sensor_msgs/CompressedImage of JPEG bytes."""
    data = np.frombuffer(jpeg, np.uint8)
    return _make(
        topics.COMPRESSED_IMAGE,
        header=header(stamp_ns, frame_id),
        format=JPEG_FORMAT,
        data=data,
    )


def jpeg_image(stamp_ns: int, frame_id: str, image_rgb: np.ndarray) -> Any:
    """Build a sensor_msgs/CompressedImage of an image (H, W, 3), which is encoded as JPEG."""
    jpeg = image_files.encode(image_rgb, jpeg_quality=image_files.IMAGE_QUALITY)
    return compressed_image(stamp_ns, frame_id, jpeg)


def camera_info(stamp_ns: int, frame_id: str, camera: Camera) -> Any:
    """Build a sensor_msgs/CameraInfo."""
    K, (model, coefficients) = camera.K(), camera.to_ros()
    roi = _make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return _make(
        topics.CAMERA_INFO,
        header=header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=model,
        d=np.array(coefficients),
        k=K.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([K, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def odometry(stamp_ns: int, frame_id: str, child_frame_id: str, T_odom_base: Matrix) -> Any:
    """Build a nav_msgs/Odometry; covariances are zero (unknown), and so is the twist."""
    zero = _vector("Vector3", np.zeros(3))
    twist = _make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    return _make(
        topics.ODOMETRY,
        header=header(stamp_ns, frame_id),
        child_frame_id=child_frame_id,
        pose=_pose_with_covariance(T_odom_base, np.zeros((6, 6))),
        twist=_make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )


def nav_sat_fix(
    stamp_ns: int, frame_id: str, geodetic: tuple[float, float, float], sigma_enu_m: np.ndarray
) -> Any:
    """Build a sensor_msgs/NavSatFix.

    geodetic: latitude and longitude in degrees, altitude in metres.
    sigma_enu_m: (3,) sigmas to the east, north and up.
    """
    status = _make("sensor_msgs/msg/NavSatStatus", status=0, service=1)
    return _make(
        topics.NAV_SAT_FIX,
        header=header(stamp_ns, frame_id),
        status=status,
        latitude=float(geodetic[0]),
        longitude=float(geodetic[1]),
        altitude=float(geodetic[2]),
        position_covariance=np.diag(sigma_enu_m**2).reshape(-1),
        position_covariance_type=2,  # COVARIANCE_TYPE_DIAGONAL_KNOWN
    )


def pose_with_covariance(
    stamp_ns: int, frame_id: str, T_map_base: Matrix, covariance: Matrix
) -> Any:
    """Build a geometry_msgs/PoseWithCovarianceStamped; covariance (6, 6) in map axes."""
    return _make(
        topics.POSE_WITH_COVARIANCE,
        header=header(stamp_ns, frame_id),
        pose=_pose_with_covariance(T_map_base, covariance),
    )


def static_transform(stamp_ns: int, parent: str, child: str, T_parent_child: Matrix) -> Any:
    """Build a tf2_msgs/TFMessage with one transform."""
    transform = _make(
        "geometry_msgs/msg/Transform",
        translation=_vector("Vector3", T_parent_child[:3, 3]),
        rotation=_quaternion(T_parent_child),
    )
    stamped = _make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=transform,
    )
    return _make(topics.TF_MESSAGE, transforms=[stamped])


def _pose_with_covariance(T: Matrix, covariance: Matrix) -> Any:
    pose = _make(
        "geometry_msgs/msg/Pose", position=_vector("Point", T[:3, 3]), orientation=_quaternion(T)
    )
    return _make(
        "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=covariance.reshape(-1)
    )


def _vector(name: str, xyz: np.ndarray) -> Any:
    x, y, z = (float(value) for value in xyz)
    return _make(f"geometry_msgs/msg/{name}", x=x, y=y, z=z)


def _quaternion(T: Matrix) -> Any:
    x, y, z, w = (float(value) for value in se3.quat_xyzw(T))
    return _make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
