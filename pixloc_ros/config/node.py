"""Settings of the node: frames, topics and rates."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pixloc_ros.config.section import Section

Number = Annotated[float, Field(ge=-1000.0, le=1000.0)]
FRAME_SPACING_M = 0.7  # between recorded frames, from which maps are updated
CALIBRATION_FILES = (".yaml", ".yml")  # what the name of a calibration's file ends with
CAMERA_NAME = "${NAME}"  # in a URL, as camera_info_manager has it
Mounting = tuple[Number, Number, Number, Number, Number, Number, Number]


class NodeConfig(Section):
    """The ROS side: frames, topics, rates."""

    map_frame: str = Field(default="map", description="Name of the map's frame, as in REP 105.")
    odom_frame: str = Field(default="odom", description="Name of the odometry's frame.")
    base_frame: str = Field(default="base_link", description="Name of the vehicle's frame.")
    odom_source: Literal["topic", "tf"] = Field(
        default="topic",
        description="Source of odometry: the topic odom, or the transform from odom_frame to "
        "base_frame on /tf.",
    )
    cameras: str = Field(
        default="",
        pattern=r"^([A-Za-z][A-Za-z0-9_]*(,[A-Za-z][A-Za-z0-9_]*)*)?$",
        description="Names of the cameras of a rig, separated by commas: front,left subscribes to "
        "front/image, front/camera_info, left/image and so on. Empty: one camera, on image and "
        "camera_info.",
    )
    camera_info_url: str = Field(
        default="",
        description="YAML file with the camera's calibration, as camera_calibration writes it, "
        "instead of the topic camera_info: a path, file:///calibration/front.yaml or "
        "package://robot/calibration/front.yaml; ${NAME} is the name of a rig's camera. Empty: "
        "camera_info is subscribed to.",
    )
    camera_sync_tolerance_s: float = Field(
        default=0.03,
        ge=0.0,
        le=10.0,
        description="Images of a rig's cameras whose stamps differ by at most this, in seconds, "
        "are localized together.",
    )
    frozen_image_distance_m: float = Field(
        default=0.5,
        ge=0.0,
        le=1e5,
        description="An image that stays the same, byte for byte, while the vehicle drives farther "
        "than this, in metres, is not used: its camera is frozen.",
    )
    camera_frame: str = Field(
        default="",
        description="Name of the camera's optical frame. Empty: the frame in the image's header.",
    )
    camera_mounting: Mounting = Field(
        default=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        description="Pose of the camera's optical frame in the vehicle's frame, as `pixloc "
        "calibrate` finds it: x, y, z in metres and quaternion x, y, z, w. All zero: taken from "
        "/tf_static. Not for a rig.",
    )
    camera_time_offset_s: float = Field(
        default=0.0,
        ge=-10.0,
        le=10.0,
        description="Time, in seconds, that is added to the stamps of images to match those of "
        "odometry, as `pixloc calibrate` finds it.",
    )
    tf_mode: Literal["none", "map_odom", "map_base"] = Field(
        default="map_odom",
        description="Transform to publish on /tf: from map to odom, as in REP 105; from map to the "
        "vehicle, if there is no odometry; or none.",
    )
    tf_rate_hz: float = Field(
        default=20.0,
        ge=0.01,
        le=1000.0,
        description="Rate at which the transform is published, in Hz.",
    )
    transform_tolerance_s: float = Field(
        default=0.1,
        ge=0.0,
        le=60.0,
        description="Time by which the transform is post-dated, in seconds, so that it remains "
        "valid until the next one.",
    )
    tf_smoothing_s: float = Field(
        default=0.0,
        ge=0.0,
        le=86400.0,
        description="Time constant, in seconds, over which corrections of map to odom are spread, "
        "so that the vehicle does not jump in the map; 0 applies them at once. ~/pose is not "
        "smoothed.",
    )
    tf_smoothing_max_m: float = Field(
        default=1.0,
        ge=0.0,
        le=1e5,
        description="A correction that moves the vehicle by more than this, in metres, is applied "
        "at once.",
    )
    tf_smoothing_max_deg: float = Field(
        default=5.0,
        ge=0.0,
        le=180.0,
        description="A correction that turns the vehicle by more than this, in degrees, is applied "
        "at once.",
    )
    max_map_points: int = Field(
        default=200_000,
        ge=1,
        le=100_000_000,
        description="Maximum number of points on ~/map_points.",
    )
    max_path_poses: int = Field(
        default=1000, ge=1, le=1_000_000, description="Maximum number of poses on ~/path."
    )
    path_spacing_m: float = Field(
        default=0.5,
        ge=0.0,
        le=1e5,
        description="Minimum distance between the poses on ~/path, in metres.",
    )
    last_pose_file: str = Field(
        default="last_pose.json",
        description="File that keeps the last pose for the next start. A relative path is below "
        "$ROS_HOME, in a folder with the node's name; empty: no pose is kept.",
    )
    record_sessions: str = Field(
        default="",
        description="Folder in which each activation creates a session folder of accepted frames, "
        "for `pixloc map update --session`. A relative path is below $ROS_HOME, in a folder with "
        "the node's name; empty: nothing is recorded.",
    )
    session_spacing_m: float = Field(
        default=FRAME_SPACING_M,
        ge=0.01,
        le=1e5,
        description="Distance between recorded frames, in metres; a turn by 10 degrees counts as "
        "this distance.",
    )
    sessions_max_mb: float = Field(
        default=2000.0,
        ge=1.0,
        le=1e8,
        description="Maximum size of all sessions in node.record_sessions together, in MB; the "
        "oldest frames are removed for new ones.",
    )
    map_root: str = Field(
        default="",
        description="Folder, or URL, below which ~/load_map may load maps. Empty: it loads none.",
    )
    autostart: bool = Field(
        default=True,
        description="Configure and activate the node when it starts, without a lifecycle manager.",
    )
    compressed: bool = Field(
        default=False,
        description="Subscribe only to image/compressed. Otherwise the node takes what is "
        "published; if several are, it prefers the raw image, then image/compressed, image/ffmpeg "
        "and image/foxglove.",
    )
    diagnostics_rate_hz: float = Field(
        default=1.0,
        ge=0.01,
        le=1000.0,
        description="Rate of /diagnostics, in Hz.",
    )
    bond: bool = Field(
        default=False,
        description="Publish heartbeats on the topic bond while the node is active, as nav2's "
        "lifecycle manager expects.",
    )
    amcl_interface: bool = Field(
        default=False,
        description="Also offer AMCL's interface: the topic amcl_pose and the services "
        "reinitialize_global_localization, request_nomotion_update and, with nav2_msgs, "
        "set_initial_pose.",
    )
    odometry_at_full_rate: bool = Field(
        default=False,
        description="Publish ~/odometry with every odometry message that arrives, instead of at "
        "the rate of the transform.",
    )
    identity_extrinsics: bool = Field(
        default=False,
        description="Without a transform to the camera, assume that it is at the vehicle's origin "
        "and points ahead, instead of waiting for /tf_static.",
    )
    calibration_wait_s: float = Field(
        default=0.5,
        ge=0.0,
        le=60.0,
        description="Maximum time that a frame waits for camera_info and /tf_static, in seconds.",
    )

    @field_validator("camera_info_url")
    @classmethod
    def _check_file_name(cls, url: str) -> str:
        if url and not url.endswith(CALIBRATION_FILES):
            raise ValueError("expected a YAML file, as camera_calibration writes it")
        return url

    @model_validator(mode="after")
    def _check_calibrations(self) -> Self:
        names = f"{CAMERA_NAME} in camera_info_url"
        if CAMERA_NAME in self.camera_info_url and not self.cameras:
            raise ValueError(f"{names} is for the cameras of a rig: node.cameras names none")
        if self.camera_info_url and "," in self.cameras and CAMERA_NAME not in self.camera_info_url:
            raise ValueError(f"each camera of a rig has its own file: write {names}")
        return self

    @model_validator(mode="after")
    def _check_mounting(self) -> Self:
        if any(self.camera_mounting):
            if self.cameras:
                raise ValueError("camera_mounting is for a single camera: leave it out for a rig")
            if abs(math.hypot(*self.camera_mounting[3:]) - 1.0) > 0.01:
                raise ValueError("camera_mounting ends with a quaternion x, y, z, w of norm 1")
        return self

    @property
    def camera_time_offset_ns(self) -> int:
        """The time offset in whole nanoseconds, like stamps."""
        return round(self.camera_time_offset_s * 1e9)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of a rig's cameras; a single empty name if there is only one camera."""
        return tuple(self.cameras.split(","))

    @property
    def camera_info_urls(self) -> dict[str, str]:
        """Path or URL of each camera's calibration file, by its name; empty without such files."""
        url = self.camera_info_url
        return {name: url.replace(CAMERA_NAME, name) for name in self.camera_names if url}
