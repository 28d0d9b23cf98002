"""Clouds, cameras and pictures for RViz, made only while somebody subscribes."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from pixloc_ros.common import image_files
from pixloc_ros.config import NodeConfig
from pixloc_ros.maps.map import Map
from pixloc_ros.ros import clouds, conversions
from pixloc_ros.ros.local_frame import LocalVisualizationFrame
from pixloc_ros.types import Estimate
from pixloc_ros.visualization import drawing, overlay

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_SHOWN_KEYFRAMES = 300  # the nearest ones; RViz draws more too slowly
_USED_RGBA = (1.0, 0.84, 0.27, 1.0)
_OTHERS_RGBA = (0.6, 0.65, 0.7, 0.5)
_ABOVE_M = np.array([0.0, 0.0, 3.0])  # from the vehicle to the text

Picture = NDArray[np.uint8]


class DebugOutputs:
    """Publishes `~/map_points`, `~/aligned_points`, `~/reference_cameras` and `~/overlay`."""

    def __init__(self, node: LifecycleNode, config: NodeConfig) -> None:
        self._node = node
        self._config = config
        create = node.create_lifecycle_publisher
        self._map_points = create(PointCloud2, "~/map_points", _LATCHED)
        self._aligned = create(PointCloud2, "~/aligned_points", 1)
        self._cameras = create(MarkerArray, "~/reference_cameras", 1)
        self._overlay = create(Image, "~/overlay", 1)
        self._compressed = create(CompressedImage, "~/overlay/compressed", 1)
        self._map: Map | None = None
        self._near = LocalVisualizationFrame(node, config.map_frame)
        self._map_sent = False

    def close(self) -> None:
        """Withdraw the topics."""
        self._near.close()
        for publisher in (
            self._map_points,
            self._aligned,
            self._cameras,
            self._overlay,
            self._compressed,
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def show_map(self, map: Map) -> None:
        """Take this map from now on; it is sent, latched, when the first subscriber comes."""
        self._map, self._map_sent = map, False
        self._near.settle(map.keyframe_T_map_cam[:, :3, 3].mean(axis=0))

    def offer_map(self) -> None:
        """Publish `~/map_points` once somebody subscribes. Called by a timer."""
        if self._map is None or self._map_sent or not _subscribed(self._map_points):
            return
        self._map_sent = True
        self._map_points.publish(self._map_cloud(self._map))

    def publish(self, estimate: Estimate, image_rgb: Picture | None) -> None:
        """Publish everything about one frame, localized or not. Called by the worker."""
        if _subscribed(self._aligned):
            self._aligned.publish(self._aligned_cloud(estimate))
        if _subscribed(self._cameras) and self._map is not None:
            self._cameras.publish(self._camera_markers(estimate, self._map))
        if image_rgb is not None and (_subscribed(self._overlay) or _subscribed(self._compressed)):
            self._publish_picture(overlay.draw_estimate(image_rgb, estimate), estimate.stamp_ns)

    def _map_cloud(self, map: Map) -> PointCloud2:
        """Return at most `node.max_map_points` points, evenly chosen, coloured by height."""
        points = map.points_map()
        points = points[:: max(1, -(-len(points) // self._config.max_map_points))]
        low, high = np.percentile(points[:, 2], [2, 98]) if len(points) else (0.0, 1.0)
        height = (points[:, 2] - low) / max(high - low, 1e-6)
        rgb = clouds.packed(drawing.colors(height, cv2.COLORMAP_VIRIDIS).reshape(-1, 3))
        stamp_ns = self._node.get_clock().now().nanoseconds
        return clouds.cloud(self._near.points(points), stamp_ns, self._near.name, rgb=rgb)

    def _aligned_cloud(self, estimate: Estimate) -> PointCloud2:
        """Return the points that were in view, coloured by residual as in the overlay.

        The cloud is empty if nothing was aligned, so that the points of an earlier frame disappear.
        """
        points, residuals = np.empty((0, 3)), np.empty(0, np.float32)
        if (alignment := estimate.alignment) is not None:
            in_view = np.isfinite(alignment.residuals)
            points, residuals = alignment.points_map[in_view], alignment.residuals[in_view]
        colors = drawing.colors(residuals / overlay.WORST_RESIDUAL).reshape(-1, 3)
        return clouds.cloud(
            self._near.points(points),
            estimate.stamp_ns,
            self._near.name,
            rgb=clouds.packed(colors),
            residual=residuals,
        )

    def _camera_markers(self, estimate: Estimate, map: Map) -> MarkerArray:
        """Draw the nearest keyframes; those that the frame was aligned with are larger."""
        T_map_cam, here = map.keyframe_T_map_cam, estimate.candidate_T_map_base
        place = T_map_cam[0] if here is None else here
        shown = map.nearest_keyframes(place[:3, 3], _SHOWN_KEYFRAMES)
        is_used = np.array([map.keyframe_names[i] in estimate.keyframes for i in shown])
        used, others = shown[is_used], shown[~is_used]
        near, where = self._near, (estimate.stamp_ns, self._near.name)
        markers = [
            clouds.cameras(near.poses(T_map_cam[others]), *where, "keyframes", _OTHERS_RGBA),
            clouds.cameras(near.poses(T_map_cam[used]), *where, "references", _USED_RGBA, size=2.0),
        ]
        if here is None:  # remove the text about an earlier frame
            return MarkerArray(markers=[*markers, clouds.no_text(*where)])
        words = f"{estimate.status}: {estimate.message}"
        above = near.points(here[:3, 3]) + _ABOVE_M
        return MarkerArray(markers=[*markers, clouds.text(words, above, *where)])

    def _publish_picture(self, picture: Picture, stamp_ns: int) -> None:
        height, width = picture.shape[:2]
        header = conversions.header(stamp_ns, "")
        if _subscribed(self._overlay):
            message = Image(header=header, height=height, width=width, encoding="rgb8")
            message.step, message.data = 3 * width, clouds.octets(picture)
            self._overlay.publish(message)
        if _subscribed(self._compressed):
            jpeg = array("B", image_files.encode(picture))
            self._compressed.publish(CompressedImage(header=header, format="jpeg", data=jpeg))


def _subscribed(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0
