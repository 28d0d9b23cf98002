"""Which topic a camera's images are taken from, for each way to remap it."""

from __future__ import annotations

import time

import pytest


@pytest.mark.ros
@pytest.mark.parametrize("only_compressed", [False, True], ids=["as published", "compressed"])
@pytest.mark.parametrize(
    ("remapping", "topic"),
    [
        ((), "/robot/image/compressed"),
        (("image:=/front/image_raw",), "/front/image_raw/compressed"),
        (("image:=/front/image_raw", "image/compressed:=/front/jpeg"), "/front/jpeg"),
    ],
    ids=["as it is", "image", "both"],
)
def test_compressed_images_come_below_the_remapped_topic(
    domain: int, remapping: tuple[str, ...], topic: str, only_compressed: bool
) -> None:
    import rclpy
    from rclpy.context import Context
    from rclpy.lifecycle import LifecycleNode
    from sensor_msgs.msg import CompressedImage

    from helpers.live import PATIENCE_S
    from pixloc_ros.ros.inputs import CameraInput

    context = Context()
    rclpy.init(context=context, domain_id=domain)
    arguments = ["--ros-args", *(word for rule in remapping for word in ("-r", rule))]
    node = LifecycleNode("localizer", namespace="/robot", context=context, cli_args=arguments)
    other = rclpy.create_node("camera", context=context)
    other.create_publisher(CompressedImage, topic, 10)
    camera = CameraInput(node, "", only_compressed, lambda event: None)
    end_s = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end_s and not node.get_subscriptions_info_by_topic(topic):
            camera.change_to_published()
            time.sleep(0.02)
        assert len(node.get_subscriptions_info_by_topic(topic)) == 1
    finally:
        camera.close()
        for each in (node, other):
            each.destroy_node()
        rclpy.shutdown(context=context)
