"""The built package: its messages and its executable."""

import os
from pathlib import Path

import pytest

from pixloc_ros.types import Reason


@pytest.mark.ros
def test_message_survives_the_wire_beside_the_modules() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    from pixloc_ros.msg import AlignmentStatus

    sent = AlignmentStatus(
        status=AlignmentStatus.STATUS_REJECTED,
        reason=Reason.FEW_INLIERS.value,
        iterations=[20, 7, 3],
        stages=["features", "alignment"],
        stages_ms=[61.5, 40.25],
    )
    assert deserialize_message(serialize_message(sent), AlignmentStatus) == sent


@pytest.mark.ros
def test_installed_node_can_be_started() -> None:
    from ament_index_python import get_package_prefix

    node = Path(get_package_prefix("pixloc_ros")) / "lib" / "pixloc_ros" / "localizer_node"
    assert os.access(node, os.X_OK)
    assert Path(node.read_text().splitlines()[0].removeprefix("#!")).exists()
