"""Convert images by cv_bridge and quaternions by tf_transformations, where these are correct.

ROS wheels lack both, and a cv_bridge built against another numpy imports but fails. So each image
encoding, and the rotation, is tried once; if that fails, the package's own code, which also reads
bags, does the work. Both ways give the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.sensors import decoding

# image_encodings.hpp has these names, cv_bridge only their older ones.
CV_BRIDGE_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}


def unpack(message: Any) -> NDArray[Any]:
    """Return a packed sensor_msgs/Image as an array, colours unchanged.

    cv_bridge unpacks it if it knows the encoding.
    """
    if cv_bridge_knows(message.encoding):
        return _unpack_by_cv_bridge(message)
    return decoding.unpack(message)


@cache
def cv_bridge_knows(encoding: str) -> bool:
    """Return whether cv_bridge is installed and decodes an encoding as our own decoder does."""
    width, height = 4, 2
    step = width * decoding.ENCODINGS[encoding]
    picture = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=False,
        step=step,
        data=np.arange(height * step, dtype=np.uint8),
    )
    wanted = decoding.unpack(picture)
    return _works(lambda: np.array_equal(_unpack_by_cv_bridge(picture), wanted))


def quat_xyzw(T: Matrix) -> NDArray[np.float64]:
    """Return the quaternion (4,) of a pose (4, 4), w >= 0; by tf_transformations if possible."""
    if tf_transformations_works():
        return _quat_xyzw_by_tf_transformations(T)
    return se3.quat_xyzw(T)


@cache
def tf_transformations_works() -> bool:
    """Return whether tf_transformations is installed and converts a rotation correctly."""
    T = se3.make(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.zeros(3))
    return _works(lambda: np.allclose(_quat_xyzw_by_tf_transformations(T), se3.quat_xyzw(T)))


def _works(check: Callable[[], bool]) -> bool:
    """Return the result of a check; False if an optional package is missing or broken."""
    try:
        return bool(check())
    except Exception:  # broken packages raise anything
        return False


def _unpack_by_cv_bridge(message: Any) -> NDArray[Any]:
    from cv_bridge import CvBridge

    renamed = SimpleNamespace(**{name: getattr(message, name) for name in _FIELDS})
    renamed.encoding = CV_BRIDGE_NAMES.get(message.encoding, message.encoding)
    return np.asarray(CvBridge().imgmsg_to_cv2(renamed, desired_encoding="passthrough"))


_FIELDS = ("height", "width", "encoding", "is_bigendian", "step", "data")


def _quat_xyzw_by_tf_transformations(T: Matrix) -> NDArray[np.float64]:
    import tf_transformations

    quat_xyzw = np.asarray(tf_transformations.quaternion_from_matrix(T), np.float64)
    return -quat_xyzw if quat_xyzw[3] < 0 else quat_xyzw
