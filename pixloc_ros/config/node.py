"""The node: frames, topics and rates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pixloc_ros.config.section import Section


class NodeConfig(Section):
    """The ROS side: frames, topics, rates."""

    map_frame: str = Field(default="map", description="frame of the map")
    odom_frame: str = Field(default="odom", description="frame of the odometry")
    base_frame: str = Field(default="base_link", description="frame of the vehicle")
    odom_source: Literal["topic", "tf"] = Field(
        default="topic", description="odometry from the topic odom, or odom to base_link of /tf"
    )
    cameras: str = Field(
        default="",
        pattern=r"^(\w+(,\w+)*)?$",
        description="of a rig: names, as front,left, on front/image ...; empty: one, on image",
    )
    camera_tolerance_s: float = Field(
        default=0.03, ge=0, description="images of a rig so close in time are taken together"
    )
    frozen_image_distance_m: float = Field(
        default=0.5, gt=0, description="one image unchanged over so much motion is frozen"
    )
    camera_frame: str = Field(default="", description="optical frame; empty: from the image header")
    tf_mode: Literal["none", "map_odom", "map_base"] = Field(
        default="map_odom", description="what to send"
    )
    tf_rate_hz: float = Field(
        default=20.0, gt=0, description="the transform is re-sent at this rate"
    )
    transform_tolerance_s: float = Field(
        default=0.1, ge=0, description="post-dating of the transform"
    )
    tf_smoothing_s: float = Field(
        default=0.0, ge=0, description="time constant of corrections of map to odom; 0: at once"
    )
    tf_smoothing_max_m: float = Field(
        default=1.0, gt=0, description="larger corrections of the vehicle are made at once"
    )
    tf_smoothing_max_deg: float = Field(
        default=5.0, gt=0, description="larger corrections of the vehicle are made at once"
    )
    map_points_max: int = Field(default=200_000, ge=1, description="points of ~/map_points")
    path_max_poses: int = Field(default=1000, ge=1, description="length of ~/path")
    path_spacing_m: float = Field(default=0.5, ge=0, description="between the poses of ~/path")
    last_pose_file: str = Field(
        default="last_pose.json",
        description="kept for the next start, below $ROS_HOME/NODE if relative; empty: nowhere",
    )
    map_root: str = Field(default="", description="~/load_map loads maps below this folder only")
    autostart: bool = Field(default=True, description="configure and activate by itself")
    compressed: bool = Field(
        default=False, description="wait for image/compressed; else for what is published"
    )
    diagnostics_rate_hz: float = Field(default=1.0, gt=0, description="rate of /diagnostics")
    identity_extrinsics: bool = Field(
        default=False, description="camera at base_link, looking forward"
    )
    calibration_wait_s: float = Field(
        default=0.5, ge=0, description="a frame waits so long for camera_info and /tf_static"
    )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Of a rig; one empty name for a camera that is alone."""
        return tuple(self.cameras.split(","))
