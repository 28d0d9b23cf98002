"""Build messages of points and cameras for RViz and Foxglove."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.ros import conversions

# Image corners seen from the camera's centre, in metres: a field of view of about 70 x 45 degrees.
_CORNERS = np.array([[-0.35, -0.2, 0.5], [0.35, -0.2, 0.5], [0.35, 0.2, 0.5], [-0.35, 0.2, 0.5]])
_EDGES = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
_LINE_M = 0.03
_TEXT = "state"  # namespace of the text marker


def cloud(points: Matrix, stamp_ns: int, frame_id: str, **columns: NDArray) -> PointCloud2:
    """Return a PointCloud2 of points (N, 3) in metres, with a float32 field per column (N,).

    A column named `rgb` holds colours packed by `packed`.
    """
    names = ["x", "y", "z", *columns]
    kind = np.dtype([(name, np.float32) for name in names])
    records = np.empty(len(points), kind)
    for name, values in zip(names, [*points.T, *columns.values()], strict=True):
        records[name] = values
    return PointCloud2(
        header=conversions.header(stamp_ns, frame_id),
        height=1,
        width=len(records),
        fields=[_field(name, 4 * i) for i, name in enumerate(names)],
        is_bigendian=False,
        point_step=kind.itemsize,
        row_step=records.nbytes,
        data=octets(records),
        is_dense=bool(np.isfinite(points).all()),
    )


def octets(values: NDArray) -> array[int]:
    """Return an array's bytes in the one type that rclpy accepts without checking each of them."""
    return array("B", values.tobytes())


def packed(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pack colours (N, 3) into the float32 (N,) that RViz reads as `rgb`: bits 0xRRGGBB."""
    red, green, blue = rgb.astype(np.uint32).T
    return (red << 16 | green << 8 | blue).view(np.float32)


def cameras(
    T_map_cam: Matrix,
    stamp_ns: int,
    frame_id: str,
    name: str,
    color: Sequence[float],
    size: float = 1.0,
) -> Marker:
    """Draw one pyramid per camera T_map_cam (M, 4, 4), as a LINE_LIST.

    color: RGBA in 0..1.
    size: scale of the pyramids.
    """
    corners = np.vstack([np.zeros(3), size * _CORNERS])
    ends = se3.transform(T_map_cam, corners)[:, np.array(_EDGES)].reshape(-1, 3)
    return Marker(
        header=conversions.header(stamp_ns, frame_id),
        ns=name,
        id=0,
        type=Marker.LINE_LIST,
        action=Marker.ADD,
        pose=conversions.pose(np.eye(4)),
        scale=Vector3(x=_LINE_M * size),
        color=ColorRGBA(**dict(zip("rgba", map(float, color), strict=True))),
        lifetime=Duration(),
        points=[Point(x=x, y=y, z=z) for x, y, z in ends.tolist()],
    )


def text(words: str, position: Matrix, stamp_ns: int, frame_id: str) -> Marker:
    """Place text, which faces the viewer, at a position (3,) in the map frame, in metres."""
    x, y, z = position.tolist()
    marker = Marker(
        header=conversions.header(stamp_ns, frame_id),
        ns=_TEXT,
        type=Marker.TEXT_VIEW_FACING,
        action=Marker.ADD,
        scale=Vector3(z=0.5),
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
        text=words,
    )
    marker.pose.position = Point(x=x, y=y, z=z)
    return marker


def no_text(stamp_ns: int, frame_id: str) -> Marker:
    """Return the marker that removes the text."""
    header = conversions.header(stamp_ns, frame_id)
    return Marker(header=header, ns=_TEXT, action=Marker.DELETE)


def _field(name: str, offset: int) -> PointField:
    return PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
