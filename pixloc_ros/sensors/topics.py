"""The topic of each input: one set of names, for writing and for reading bags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from pixloc_ros.common.ros_urls import local_path
from pixloc_ros.config.node import CALIBRATION_FILES, NodeConfig
from pixloc_ros.errors import ConfigError

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
NAV_SAT_FIX = "sensor_msgs/msg/NavSatFix"
POSE_WITH_COVARIANCE = "geometry_msgs/msg/PoseWithCovarianceStamped"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"

# Message types that each input may have.
TYPES: dict[str, tuple[str, ...]] = {
    "image": (IMAGE, COMPRESSED_IMAGE, FFMPEG_PACKET, COMPRESSED_VIDEO),
    "camera_info": (CAMERA_INFO,),
    "odom": (ODOMETRY,),
    "gnss_fix": (NAV_SAT_FIX,),
    "gnss_pose": (POSE_WITH_COVARIANCE,),
    "initialpose": (POSE_WITH_COVARIANCE,),
    "tf_static": (TF_MESSAGE,),
    "tf": (TF_MESSAGE,),
}
VIDEO = (FFMPEG_PACKET, COMPRESSED_VIDEO)
# Message types published by plugins of image_transport, by the suffix of the topic's name.
TRANSPORTS = {
    "/compressed": COMPRESSED_IMAGE,
    "/ffmpeg": FFMPEG_PACKET,
    "/foxglove": COMPRESSED_VIDEO,
}
REQUIRED = ("image", "camera_info")
# If a bag has exactly one topic of the type, it is used whatever its name. Poses are not guessed:
# a pose topic may as well be another localizer's answer.
DISCOVERED = ("image", "camera_info", "odom", "gnss_fix")


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic of each input; the defaults are the node's names.

    For bags, a calibration may also be a YAML file as camera_calibration writes it.
    """

    image: str = "/image"
    camera_info: str = "/camera_info"
    odom: str = "/odom"
    gnss_fix: str = "/gnss/fix"
    gnss_pose: str = "/gnss/pose"
    initialpose: str = "/initialpose"
    tf_static: str = "/tf_static"
    tf: str = "/tf"
    chosen: frozenset[str] = frozenset()  # inputs whose topic the user named
    rig: Mapping[str, str] = field(default_factory=dict)  # the same of its cameras: "left/image"

    def remapped(self, assignments: Iterable[str]) -> Topics:
        """Apply `part=/topic` assignments, and `left/image=/topic` for a camera of a rig.

        Raises ConfigError for a part that does not exist.
        """
        given = dict(_split(assignment) for assignment in assignments)
        rig = {part: topic for part, topic in given.items() if "/" in part}
        names = {part: topic for part, topic in given.items() if "/" not in part}
        chosen = self.chosen | frozenset(names)
        return replace(self, **names, chosen=chosen, rig={**self.rig, **rig})

    def with_calibration_files(self, config: NodeConfig) -> Topics:
        """Take the calibrations of `node.camera_info_url`, except where the user named a topic.

        Raises ConfigError for a URL that leads nowhere.
        """
        files = {n: str(local_path(u, ConfigError)) for n, u in config.camera_info_urls.items()}
        if not config.cameras:
            named = "camera_info" in self.chosen
            return self if named or not files else self.remapped([f"camera_info={files['']}"])
        rig = {f"{name}/camera_info": file for name, file in files.items()}
        return replace(self, rig={**rig, **self.rig})

    def of_camera(self, name: str) -> Topics:
        """Return the topics of one camera of a rig: `/left/image`, unless others were named."""
        given = {part: self.rig.get(f"{name}/{part}") for part in REQUIRED}
        return Topics(
            image=given["image"] or f"/{name}/image",
            camera_info=given["camera_info"] or f"/{name}/camera_info",
            chosen=frozenset(part for part, topic in given.items() if topic is not None),
        )

    def check_rig(self, cameras: Iterable[str]) -> None:
        """Raise ConfigError if a topic was named for a camera that does not exist."""
        names = [name for name in cameras if name]
        for part in self.rig:
            if part.rpartition("/")[0] not in names:
                known = f"is {','.join(names)}" if names else "names no camera"
                raise ConfigError(f"topic '{part}=': node.cameras {known}")

    @property
    def calibration_files(self) -> list[str]:
        """Files in place of topics with calibrations."""
        named = [self.camera_info, *self.rig.values()]
        return [name for name in named if is_calibration_file(name)]

    @property
    def images(self) -> list[str]:
        """Topics that may carry images: the named one, and image_transport's below it."""
        return [self.image, *(self.image + end for end in TRANSPORTS)]

    @property
    def compressed_image(self) -> str:
        """The topic of compressed images, by the convention of image_transport."""
        return self.image if self.image.endswith("/compressed") else f"{self.image}/compressed"


def is_calibration_file(name: str) -> bool:
    """Return whether this names a file instead of a topic: no topic has a dot."""
    return name.endswith(CALIBRATION_FILES)


def camera_info_beside(image: str) -> str:
    """Return the topic on which drivers publish the calibration of the images on a topic."""
    for suffix in TRANSPORTS:
        image = image.removesuffix(suffix)
    return f"{image.rpartition('/')[0]}/camera_info"


def _split(assignment: str) -> tuple[str, str]:
    part, separator, topic = assignment.partition("=")
    known = [each.name for each in fields(Topics) if each.name not in ("chosen", "rig")]
    camera, slash, of_camera = part.rpartition("/")
    valid = (camera and of_camera in REQUIRED) if slash else part in known
    if not separator or not topic or not valid:
        raise ConfigError(
            f"topic '{assignment}': expected part=/topic, where part is one of {', '.join(known)}, "
            "or of a camera of a rig: left/image, left/camera_info"
        )
    if part.endswith("camera_info") and is_calibration_file(topic):
        return part, topic
    return part, topic if topic.startswith("/") else f"/{topic}"
