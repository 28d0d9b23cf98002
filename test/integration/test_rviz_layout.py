"""The layout for RViz, against the names that RViz's plugins read; RViz itself is not here.

RViz ignores a property that it does not know, without a word. The names and the values of the
enumerations below are those of rviz_common and rviz_default_plugins of ROS 2 Jazzy; all were found
again in the sources of ros2/rviz at commit f7112b1a.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

FOXGLOVE = Path(__file__).resolve().parents[2] / "config" / "pixloc.foxglove.json"
LAYOUT = Path(__file__).resolve().parents[2] / "config" / "pixloc.rviz"

COMMON = {"Class", "Name", "Enabled", "Value"}
TOPIC = {
    *("Depth", "Durability Policy", "Filter size", "History Policy"),
    *("Reliability Policy", "Value"),
}
ARROW = {"Head Length", "Head Radius", "Shaft Length", "Shaft Radius"}
COVARIANCE = {
    "Position": {"Alpha", "Color", "Scale", "Value"},
    "Orientation": {"Alpha", "Color", "Color Style", "Frame", "Offset", "Scale", "Value"},
    "Value": set(),
}
PROPERTIES: dict[str, Any] = {
    "rviz_common/Displays": {"Help Height", "Property Tree Widget"},
    "rviz_common/Views": {"Splitter Ratio"},
    "rviz_common/Time": {"Experimental", "SyncMode", "SyncSource"},
    "rviz_default_plugins/Grid": {
        *("Alpha", "Cell Size", "Color", "Line Style", "Normal Cell Count", "Offset"),
        *("Plane", "Plane Cell Count", "Reference Frame"),
    },
    "rviz_default_plugins/TF": {
        *("Filter (blacklist)", "Filter (whitelist)", "Frame Timeout", "Frames", "Marker Scale"),
        *("Show Arrows", "Show Axes", "Show Names", "Tree", "Update Interval"),
    },
    "rviz_default_plugins/PointCloud2": {
        *("Alpha", "Autocompute Intensity Bounds", "Axis", "Channel Name", "Color"),
        *("Color Transformer", "Decay Time", "Invert Rainbow", "Max Color", "Max Intensity"),
        *("Min Color", "Min Intensity", "Position Transformer", "Selectable", "Size (Pixels)"),
        *("Size (m)", "Style", "Topic", "Use Fixed Frame", "Use rainbow"),
    },
    "rviz_default_plugins/MarkerArray": {"Namespaces", "Topic"},
    "rviz_default_plugins/PoseWithCovariance": {
        *("Alpha", "Axes Length", "Axes Radius", "Color", "Covariance", "Shape", "Topic"),
        *ARROW,
    },
    "rviz_default_plugins/Odometry": {
        *("Angle Tolerance", "Covariance", "Keep", "Position Tolerance", "Shape", "Topic"),
    },
    "rviz_default_plugins/Path": {
        *("Alpha", "Buffer Length", "Color", "Length", "Line Style", "Line Width", "Offset"),
        *("Pose Color", "Pose Style", "Radius", "Head Diameter", "Head Length"),
        *("Shaft Diameter", "Shaft Length", "Topic"),
    },
    "rviz_default_plugins/Image": {
        *("Max Value", "Median window", "Min Value", "Normalize Range", "Topic"),
    },
    "rviz_default_plugins/MoveCamera": set(),
    "rviz_default_plugins/Select": set(),
    "rviz_default_plugins/Measure": {"Line color"},
    "rviz_default_plugins/SetInitialPose": {
        *("Covariance x", "Covariance y", "Covariance yaw", "Topic"),
    },
    "rviz_default_plugins/ThirdPersonFollower": {
        *("Distance", "Enable Stereo Rendering", "Focal Point"),
        *("Invert Z Axis", "Near Clip Distance", "Pitch", "Target Frame", "Yaw"),
    },
}
CHOICES = {
    "Style": {"Points", "Squares", "Flat Squares", "Spheres", "Boxes", "Tiles"},
    "Color Transformer": {"AxisColor", "FlatColor", "Intensity", "RGB8", "RGBF32"},
    "Position Transformer": {"XYZ"},
    "Line Style": {"Lines", "Billboards"},
    "Shape": {"Arrow", "Axes"},
    "Durability Policy": {"System Default", "Volatile", "Transient Local"},
    "Reliability Policy": {"System Default", "Reliable", "Best Effort"},
}


def plugins(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping with a class: displays, panels, tools and views."""
    if isinstance(node, dict):
        if "Class" in node:
            yield node
        for value in node.values():
            yield from plugins(value)
    elif isinstance(node, list):
        for value in node:
            yield from plugins(value)


def entries(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    for value in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from entries(value)


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    return dict(yaml.safe_load(LAYOUT.read_text()))


def test_rviz_knows_every_property(layout: dict[str, Any]) -> None:
    seen = list(plugins(layout))
    assert len(seen) > 12
    for plugin in seen:
        kind = plugin["Class"]
        assert kind in PROPERTIES, f"{kind}: no such plugin"
        unknown = plugin.keys() - COMMON - PROPERTIES[kind]
        assert not unknown, f"{kind} has no {unknown}"
        assert plugin.get("Topic", {}).keys() <= TOPIC
        for part, properties in plugin.get("Covariance", {}).items():
            assert part in COVARIANCE
            assert part == "Value" or properties.keys() <= COVARIANCE[part]


def test_rviz_knows_every_choice(layout: dict[str, Any]) -> None:
    chosen = [(name, value) for name, value in entries(layout) if name in CHOICES]
    assert {"Line Style", "Style", "Shape"} <= {name for name, _ in chosen}
    assert not [f"{name}: {value}" for name, value in chosen if value not in CHOICES[name]]


def test_properties_that_depend_on_another_have_it(layout: dict[str, Any]) -> None:
    for plugin in plugins(layout):
        if "Line Width" in plugin:
            assert plugin["Line Style"] == "Billboards"  # of lines it is one pixel
        if "Size (m)" in plugin:
            assert plugin["Style"] != "Points"
        if "Size (Pixels)" in plugin:
            assert plugin["Style"] == "Points"
        if "Axes Length" in plugin:
            assert plugin["Shape"] == "Axes"


def test_topics_move_with_the_namespace_of_rviz(layout: dict[str, Any]) -> None:
    topics = [plugin["Topic"]["Value"] for plugin in plugins(layout) if "Topic" in plugin]
    assert "initialpose" in topics
    assert not [topic for topic in topics if topic.startswith("/")]


def test_a_bag_can_be_followed_by_its_time(layout: dict[str, Any]) -> None:
    assert "rviz_common/Time" in [panel["Class"] for panel in layout["Panels"]]


def test_a_click_in_foxglove_is_a_pose_estimate() -> None:
    (panel,) = [p for n, p in json.loads(FOXGLOVE.read_text())["configById"].items() if "3D" in n]
    assert panel["publish"]["type"] == "pose_estimate"
    assert panel["publish"]["poseEstimateTopic"] == "/initialpose"
