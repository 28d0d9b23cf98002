"""Which topics of a robot are proposed for the localizer."""

from __future__ import annotations

import pytest
import yaml

from pixloc_ros.errors import BagError
from pixloc_ros.sensors import topics
from pixloc_ros.sensors.launch_proposal import CLOCK, propose

ROBOT = {
    "/rear/image_raw": topics.IMAGE,
    "/rear/camera_info": topics.CAMERA_INFO,
    "/front/image_raw/compressed": topics.COMPRESSED_IMAGE,
    "/front/camera_info": topics.CAMERA_INFO,
    "/front/depth/image_raw": topics.IMAGE,
    "/front/depth/camera_info": topics.CAMERA_INFO,
    "/a/unpaired/image": topics.IMAGE,
    "/odom": topics.ODOMETRY,
    "/odometry/filtered": topics.ODOMETRY,
    "/pixloc_localizer/odometry": topics.ODOMETRY,
    "/gps/fix": topics.NAV_SAT_FIX,
    "/chatter": "std_msgs/msg/String",
}


def test_a_robot_gets_its_front_camera_and_filtered_odometry() -> None:
    proposal = propose(ROBOT, "/maps/campus")
    assert proposal.arguments == {
        "map": "/maps/campus",
        "image_topic": "/front/image_raw",
        "camera_info_topic": "/front/camera_info",
        "odom_topic": "/odometry/filtered",
        "gnss_topic": "/gps/fix",
    }
    assert proposal.others["image_topic"] == ["/rear/image_raw"]
    assert proposal.others["odom_topic"] == ["/odom"]
    assert "image_topic:=/front/image_raw" in proposal.command()


def test_the_launch_file_includes_ours_with_the_arguments() -> None:
    text = propose({**ROBOT, "/clock": CLOCK}).launch_file()
    assert "# image_topic might also be /rear/image_raw" in text
    (action,) = yaml.safe_load(text)["launch"]
    assert action["include"]["file"].endswith("/launch/localizer.launch.py")
    given = {each["name"]: each["value"] for each in action["include"]["arg"]}
    assert given["use_sim_time"] == "true"  # a word: launch takes no truth value here


def test_what_is_not_there_is_left_out() -> None:
    only = {"/image": topics.IMAGE, "/camera_info": topics.CAMERA_INFO}
    assert set(propose(only).arguments) == {"map", "image_topic", "camera_info_topic"}


def test_a_camera_without_calibration_needs_a_file_of_it() -> None:
    proposal = propose({"/a/unpaired/image": topics.IMAGE})
    assert proposal.arguments["image_topic"] == "/a/unpaired/image"
    assert proposal.arguments["camera_info_url"] == "/path/to/camera.yaml"
    assert "camera_info_topic" not in proposal.arguments


def test_a_robot_without_camera_is_refused() -> None:
    with pytest.raises(BagError, match="no topic has the images of a camera"):
        propose({"/front/depth/image_raw": topics.IMAGE})
