"""Images by cv_bridge and quaternions by tf_transformations, where they give right answers.

Wheels of ROS lack both, and a cv_bridge that was built against another numpy imports and fails.
So each encoding, and the rotation, is tried once; where that fails, the decoders that bags use as
well do it. Both ways give the same arrays.
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

# Names of image_encodings.hpp that cv_bridge knows by an older one.
CV_BRIDGE_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}


def unpack(message: Any) -> NDArray[Any]:
    """Return the array of a packed sensor_msgs/Image, colours unchanged: by cv_bridge if it can."""
    if cv_bridge_knows(message.encoding):
        return _unpack_by_cv_bridge(message)
    return decoding.unpack(message)


@cache
def cv_bridge_knows(encoding: str) -> bool:
    """Return whether cv_bridge is here and decodes an encoding as the decoder of bags does."""
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
    """Return the quaternion (4,) of a (4, 4), w not negative: by tf_transformations if it can."""
    if tf_transformations_works():
        return _quat_xyzw_by_tf_transformations(T)
    return se3.quat_xyzw(T)


@cache
def tf_transformations_works() -> bool:
    """Return whether tf_transformations is here and agrees about a rotation."""
    T = se3.make(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.zeros(3))
    return _works(lambda: np.allclose(_quat_xyzw_by_tf_transformations(T), se3.quat_xyzw(T)))


def _works(check: Callable[[], bool]) -> bool:
    """Return a check's result; False where an optional package is absent or broken."""
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
