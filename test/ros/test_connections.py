"""Topics of a node without QoS events: peers that cannot connect are named all the same."""

from __future__ import annotations

import time

import pytest


@pytest.mark.ros
def test_peers_that_cannot_connect_are_named_without_any_qos_event(domain: int) -> None:
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from nav_msgs.msg import Odometry
    from rclpy.context import Context
    from tf2_msgs.msg import TFMessage

    from helpers.live import LATCHED, PATIENCE_S
    from pixloc_ros.ros.connections import Connections, NodeWithoutEvents

    ours, theirs = Context(), Context()
    for context in (ours, theirs):  # DDS allows one type per topic and context
        rclpy.init(context=context, domain_id=domain)
    node = NodeWithoutEvents("localizer", context=ours)
    node.create_subscription(TFMessage, "/tf_static", print, LATCHED)
    node.create_subscription(Odometry, "/odom", print, 10)
    node.create_lifecycle_publisher(Odometry, "~/pose", 10)
    other = rclpy.create_node("vehicle", namespace="/robot", context=theirs)
    other.create_publisher(TFMessage, "/tf_static", 10)  # volatile: late nodes would not get it
    other.create_publisher(PoseStamped, "/odom", 10)
    other.create_subscription(Odometry, "/localizer/pose", print, LATCHED)
    connections = Connections(node)
    end_s = time.monotonic() + PATIENCE_S
    try:
        assert not list(node.waitables), "each is waited for, in Python, with every message"
        lines = dict(connections.lines())
        while time.monotonic() < end_s and lines["cannot connect"].count("; ") < 2:
            time.sleep(0.05)
            lines = dict(connections.lines())
    finally:
        for each, context in ((node, ours), (other, theirs)):
            each.destroy_node()
            rclpy.shutdown(context=context)
    pose, odom, tf_static = sorted(lines["cannot connect"].split("; "))
    assert pose.startswith("nothing goes from /localizer to /robot/vehicle on /localizer/pose")
    assert "/robot/vehicle to /localizer on /odom: geometry_msgs/msg/PoseStamped is sent" in odom
    assert "on /tf_static: quality of service: volatile publisher" in tf_static
    assert lines["publishers of /tf_static"] == lines["subscribers of /localizer/pose"] == "0"
