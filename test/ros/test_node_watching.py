"""What the live node publishes to be watched, rendered and looked at; RViz itself is not here."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from helpers.messages import up_to_frame, without
from pixloc_ros.maps.map import Map
from pixloc_ros.sensors import decoding

CONFIG = Path(__file__).resolve().parents[2] / "config"


def columns(cloud: Any) -> np.ndarray:
    """The records of a PointCloud2 as a structured array."""
    kind = np.dtype([(field.name, np.float32) for field in cloud.fields])
    assert kind.itemsize == cloud.point_step
    assert cloud.row_step == cloud.width * cloud.point_step == len(cloud.data)
    return np.frombuffer(bytes(cloud.data), kind)


def positions(records: np.ndarray) -> np.ndarray:
    return np.stack([records[axis] for axis in "xyz"], axis=-1)


def colors(records: np.ndarray) -> np.ndarray:
    """RGB (N, 3) of the packed column."""
    bits = records["rgb"].copy().view(np.uint32)
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1).astype(np.uint8)


@pytest.mark.ros
@pytest.mark.slow
def test_clouds_and_cameras_are_those_of_the_map(
    rig: Any, bag: Any, street: Path, truth: Any
) -> None:
    from sensor_msgs.msg import PointCloud2
    from visualization_msgs.msg import MarkerArray

    from helpers.live import LATCHED

    map_clouds = rig.listen(PointCloud2, "map_points", LATCHED)
    aligned = rig.listen(PointCloud2, "aligned_points")
    cameras = rig.listen(MarkerArray, "reference_cameras")
    rig.play(up_to_frame(without(bag), 3))
    # The newest is kept: on a busy machine one may take the place of the one before.
    newest = rig.statuses[-1].header.stamp
    rig.until(lambda: map_clouds, "the map")
    rig.until(lambda: aligned and aligned[-1].header.stamp == newest, "the points of a frame")
    rig.until(
        lambda: cameras and cameras[-1].markers[0].header.stamp == newest, "its reference cameras"
    )
    map_ = Map.load(street / "map")
    records = columns(map_clouds[0])
    np.testing.assert_allclose(positions(records), map_.points_map(), atol=1e-4)
    assert len(np.unique(colors(records), axis=0)) > 20
    records = columns(aligned[-1])
    assert aligned[-1].header.frame_id == "map"
    assert 50 < len(records) <= rig.statuses[-1].points
    best, worst = (colors(records)[f(records["residual"])] for f in (np.argmin, np.argmax))
    assert best[2] > best[0], "a small residual is blue"
    assert worst[0] > worst[2], "a large residual is red"
    offsets = positions(records)[:, None] - map_.points_map()[None]
    assert np.linalg.norm(offsets, axis=-1).min(axis=1).max() < 1e-3
    others, used, words = cameras[-1].markers
    assert len(used.points) == 16 * len(rig.statuses[-1].keyframes) > 0
    assert len(others.points) + len(used.points) == 16 * len(map_.keyframe_names)
    assert words.text.startswith("OK")
    eye = np.array([used.points[0].x, used.points[0].y, used.points[0].z])
    assert np.linalg.norm(map_.keyframe_T_map_cam[:, :3, 3] - eye, axis=-1).min() < 1e-6


@pytest.mark.ros
@pytest.mark.slow
def test_nothing_of_an_earlier_frame_stays_when_the_place_is_lost(rig: Any, bag: Any) -> None:
    from sensor_msgs.msg import PointCloud2
    from visualization_msgs.msg import Marker, MarkerArray

    aligned = rig.listen(PointCloud2, "aligned_points")
    cameras = rig.listen(MarkerArray, "reference_cameras")
    rig.play(up_to_frame(without(bag), 1))
    rig.until(lambda: len(aligned) == len(cameras) == 1, "a good frame")
    assert aligned[0].width > 50
    drawn = cameras[0].markers[-1]
    assert (drawn.action, drawn.type) == (Marker.ADD, Marker.TEXT_VIEW_FACING)
    cut_off = deepcopy(bag.on("/image")[1])
    cut_off.data = cut_off.data[:-1]
    assert rig.look(cut_off).reason == "bad_image"
    rig.until(lambda: len(aligned) > 1 and len(cameras) > 1, "a frame that says nothing")
    assert aligned[1].width == len(aligned[1].data) == 0
    assert aligned[1].fields == aligned[0].fields  # without x, y and z RViz takes no cloud
    gone = cameras[1].markers[-1]
    assert gone.action == Marker.DELETE
    assert (gone.ns, gone.id) == (drawn.ns, drawn.id)


@pytest.mark.ros
@pytest.mark.slow
def test_the_overlay_is_a_picture_of_the_frame(rig: Any, bag: Any, tmp_path: Path) -> None:
    from sensor_msgs.msg import CompressedImage, Image

    raw, compressed = (
        rig.listen(Image, "overlay"),
        rig.listen(CompressedImage, "overlay/compressed"),
    )
    rig.play(up_to_frame(without(bag), 2))
    stamp = bag.on("/image")[1].header.stamp
    for pictures in (raw, compressed):
        rig.until(lambda p=pictures: p and p[-1].header.stamp == stamp, "the second picture")
    message = raw[-1]
    assert message.encoding == "rgb8"
    assert message.step * message.height == len(message.data)
    picture = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.width, 3)
    cv2.imwrite(str(tmp_path / "overlay.png"), picture[..., ::-1])
    jpeg = cv2.imdecode(np.frombuffer(bytes(compressed[-1].data), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(jpeg[..., ::-1].astype(int) - picture).mean() < 4
    # Both panels show the frame itself, the right or lower one with coloured points on it.
    frame = decoding.image_rgb(bag.on("/image")[1])
    panel = picture[:-44, -message.width // 2 + 2 :]
    shown = cv2.resize(frame, panel.shape[1::-1], interpolation=cv2.INTER_AREA)
    alike = np.corrcoef(panel.mean(axis=-1).ravel(), shown.mean(axis=-1).ravel())[0, 1]
    assert alike > 0.7
    saturation = cv2.cvtColor(panel, cv2.COLOR_RGB2HSV)[..., 1] > 150
    assert 0.002 < saturation.mean() < 0.5


@pytest.mark.ros
@pytest.mark.slow
def test_the_layouts_show_topics_that_exist(rig: Any) -> None:
    rviz = yaml.safe_load((CONFIG / "pixloc.rviz").read_text())["Visualization Manager"]
    shown = {
        f"/{display['Topic']['Value']}": display["Class"].rsplit("/", 1)[1]
        for display in rviz["Displays"]
        if "Topic" in display
    }
    layout = (CONFIG / "pixloc.foxglove.json").read_text()
    json.loads(layout)
    used = {word.split(".")[0] for word in layout.split('"') if word.startswith("/")}

    def there() -> dict[str, list[str]]:
        return dict(rig.node.get_topic_names_and_types())

    rig.until(lambda: {*shown, *used} <= there().keys(), f"all of {sorted({*shown, *used})}")
    kinds = {topic: there()[topic][0].rsplit("/", 1)[1] for topic in shown}
    kinds = {
        t: k.replace("PoseWithCovarianceStamped", "PoseWithCovariance") for t, k in kinds.items()
    }
    assert kinds == shown


@pytest.mark.ros
def test_a_map_far_from_its_zero_is_drawn_in_a_frame_nearby(domain: int) -> None:
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from tf2_msgs.msg import TFMessage

    from helpers.live import LATCHED, PATIENCE_S
    from pixloc_ros.geometry import se3
    from pixloc_ros.ros.local_frame import LocalVisualizationFrame

    utm = np.array([456_789.25, 5_427_123.5, 112.0]) + np.random.default_rng(0).random((50, 3))
    context, heard = Context(), []
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("far", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.create_subscription(TFMessage, "/tf_static", heard.append, LATCHED)
    near = LocalVisualizationFrame(node, "map")
    try:
        near.settle(utm[0] % 1000.0)
        assert near.name == "map"
        np.testing.assert_array_equal(near.points(utm), utm)
        near.settle(utm.mean(axis=0))
        end_s = time.monotonic() + PATIENCE_S
        while not heard and time.monotonic() < end_s:
            executor.spin_once(0.05)
    finally:
        executor.shutdown()
        near.close()
        node.destroy_node()
        rclpy.shutdown(context=context)
    ((joined,),) = (message.transforms for message in heard)
    assert (joined.header.frame_id, joined.child_frame_id) == ("map", near.name)
    T_map_near = decoding.pose(joined.transform)
    drawn = near.points(utm).astype(np.float32)
    np.testing.assert_allclose(se3.transform(T_map_near, drawn), utm, atol=1e-4)
    assert np.abs(utm.astype(np.float32) - utm).max() > 0.1, "what it is for"
    T_map_cam = se3.make(np.eye(3), utm[0])
    np.testing.assert_allclose(T_map_near @ near.poses(T_map_cam), T_map_cam, atol=1e-6)
